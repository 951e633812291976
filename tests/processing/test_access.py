"""Who may be asked for a video or a picture, and what it may cost, is said to the processor or to one call."""

import dataclasses
import io

import fila_video
import PIL.Image
import pytest
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.video_limits_fila_video import VideoLimits, VideoReadError
from fila_video.video_processing_fila_video import FilaVideoVideoProcessor
from fila_video.video_reading_fila_video import read_frames
from helpers.hostile_servers import HostileServer, head
from helpers.tiny_processor import clip, tiny_processor
from helpers.video_files import make_video


def png(width: int = 8, height: int = 6) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def server():
    """Serves a picture and a video by the endings of their names."""
    files = {b".png": png(), b".mp4": make_video(io.BytesIO(), 12, container="mp4").getvalue()}

    def serve(connection, request, server) -> None:
        data = files[request.split()[1][-4:]]
        server.send(connection, head(content_length=len(data)) + data)

    with HostileServer(serve) as server:
        yield server


def image_call(processor, url, **options):
    return processor(text="<image>What?", images=url, **options)


def nested_image_call(processor, url, **options):
    return processor(text=["<image>What?", "<image><image>Which?"], images=[[url], [url, url]], **options)


def video_call(processor, url, **options):
    return processor(text="<video>What?", videos=url.replace(".png", ".mp4"), **options)


def pictures_call(processor, url, **options):
    return processor(text="<video>What?", videos=[[[url, url]]], **options)


def chat(processor, block, **options):
    messages = [{"role": "user", "content": [block, {"type": "text", "text": "What?"}]}]
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, processor_kwargs=options)


def image_block(processor, url, **options):
    return chat(processor, {"type": "image", "url": url}, **options)


def openai_image_block(processor, url, **options):
    return chat(processor, {"type": "image_url", "image_url": {"url": url}}, **options)


def video_block(processor, url, **options):
    return chat(processor, {"type": "video", "url": url.replace(".png", ".mp4")}, **options)


def clip_block(processor, url, **options):
    block = {"type": "video_url", "video_url": {"url": url.replace(".png", ".mp4")}}
    return chat(processor, {**block, "video_start": 0, "video_end": 0.3}, **options)


CALLS = (
    image_call,
    nested_image_call,
    video_call,
    pictures_call,
    image_block,
    openai_image_block,
    video_block,
    clip_block,
)


@pytest.mark.parametrize("call", CALLS)
def test_a_service_forbids_its_own_network_to_every_form_of_a_url(processor, server, call) -> None:
    url = f"{server.url}/a.png"
    call(processor, url)
    fetched = len(server.requests)
    assert fetched >= 1
    with pytest.raises(VideoReadError, match="is not public; allow_private_hosts is False"):
        call(processor, url, allow_private_hosts=False)
    service = tiny_processor(allow_private_hosts=False)
    with pytest.raises(VideoReadError, match="is not public; allow_private_hosts is False"):
        call(service, url)
    assert len(server.requests) == fetched


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (VideoLimits(download_bytes=20), "over the limit of 20; "),
        (VideoLimits(frame_pixels=40), "over the limit of 40; |or too damaged to open"),
    ],
)
def test_limits_hold_for_every_form_of_a_url(processor, server, call, limits, message) -> None:
    url = f"{server.url}/a.png"
    with pytest.raises(VideoReadError, match=message):
        call(processor, url, limits=limits)
    limited = tiny_processor()
    limited.video_processor.limits = limits
    with pytest.raises(VideoReadError, match=message):
        call(limited, url)


@pytest.mark.parametrize(
    "video", ["http://127.0.0.1:9/video.mp4", ["http://localhost/1.png", "http://localhost/2.png"]]
)
def test_a_service_forbids_private_hosts_for_videos_and_lists_of_pictures(video) -> None:
    with pytest.raises(VideoReadError, match="is not public"):
        FilaVideoVideoProcessor().load_video(video, allow_private_hosts=False)
    with pytest.raises(VideoReadError, match="is not public"):
        FilaVideoVideoProcessor(allow_private_hosts=False).load_video(video)


def test_the_limits_of_a_call_hold_for_a_picture() -> None:
    with pytest.raises(VideoReadError, match="over the limit of 40"):
        FilaVideoVideoProcessor().load_video(png(), limits=VideoLimits(frame_pixels=40))


def test_limits_are_saved_with_the_processor(tmp_path) -> None:
    processor = tiny_processor(limits=VideoLimits(frame_pixels=40), allow_private_hosts=False)
    processor.save_pretrained(tmp_path)
    loaded = FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert loaded.video_processor.access() == processor.video_processor.access()
    with pytest.raises(VideoReadError, match="over the limit of 40"):
        loaded(text="<video>", videos=png())
    with pytest.raises(ValueError, match="limits must be a VideoLimits, got 5"):
        processor(text="<video>", videos=png(), limits=5)


def test_what_is_set_on_the_processor_itself_holds_for_reading_and_is_saved(tmp_path) -> None:
    processor = tiny_processor()
    processor.allow_private_hosts, processor.limits = False, VideoLimits(frame_pixels=40)
    with pytest.raises(VideoReadError, match="allow_private_hosts"):
        processor(text="<video>", videos="http://127.0.0.1:1/video.mp4")
    with pytest.raises(VideoReadError, match="over the limit of 40"):
        processor(text="<video>", videos=png())
    processor.save_pretrained(tmp_path)
    assert not FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True).allow_private_hosts
    processor.num_frames = 2
    inputs = processor(text="<video>", videos=clip(20), return_tensors="pt")
    assert inputs["video_num_scenes"].tolist() == [2]


def test_limits_of_another_copy_of_this_code_are_taken_and_saved(tmp_path) -> None:
    """As the package's are by remote code: of the same name and fields, but another class."""
    other = dataclasses.make_dataclass("VideoLimits", [field.name for field in dataclasses.fields(VideoLimits)])
    limits = other(**{**dataclasses.asdict(VideoLimits()), "packets": 3})
    path = make_video(tmp_path / "video.mp4", 12)
    processor = tiny_processor().video_processor
    with pytest.raises(VideoReadError, match="announces 12 samples or more, over the limit of 3"):
        processor.preprocess([path], limits=limits)
    processor.limits = limits
    assert processor.to_dict()["limits"] == dataclasses.asdict(VideoLimits(packets=3))
    with pytest.raises(ValueError, match="limits must be a VideoLimits, got 3"):
        read_frames(path, num_frames=1, limits=3)
    assert fila_video.VideoLimits is VideoLimits
