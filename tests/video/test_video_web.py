"""Videos and pictures on web servers: what is fetched, what is refused, when it ends and what is left."""

import gzip
import io
import os
import socket
import tempfile
from types import SimpleNamespace
from typing import Never

import fila_video.video_limits_fila_video as limits
import PIL.Image
import pytest
from fila_video.video_limits_fila_video import Budget, VideoLimits, VideoReadError, download
from fila_video.video_pictures_fila_video import open_picture
from fila_video.video_sources_fila_video import OpenedSource, source_name
from helpers.hostile_servers import HostileServer, head
from helpers.video_files import make_video, number_of

BODY = bytes(range(256)) * 40
STALL = 0.5  # seconds, of what is to stall
PATIENCE = 60.0  # and of what ends by another limit, which a slow machine must reach first


def fetch(url, file, **options) -> None:
    download(url, file, Budget(None, f"the file {source_name(url)}", is_web=True), **options)


def hold(connection, request, server) -> None:
    server.ended.wait(60)


def answer(*parts, then=None):
    """A behavior that sends these bytes, then does `then`."""

    def behave(connection, request, server) -> None:
        for part in parts:
            server.send(connection, part)
        if then is not None:
            then(connection, request, server)

    return behave


def drip(data):
    return lambda connection, request, server: server.drip(connection, data)


def pour(data):
    return lambda connection, request, server: server.pour(connection, data)


def redirect(target, **headers):
    return lambda connection, request, server: server.send(
        connection, head("302 Found", location=target.replace("{url}", server.url), content_length=0, **headers)
    )


HOSTILE = {
    "never answers": (hold, "no progress"),
    "closes at once": (answer(), "did not give it"),
    "drips a header": (answer(b"HTTP/1.1 200 OK\r\n", then=drip(b"a: b\r\n")), "no progress"),
    "drips one endless header line": (answer(b"HTTP/1.1 200 OK\r\nx: ", then=drip(b"a")), "no progress"),
    "sends endless headers": (answer(b"HTTP/1.1 200 OK\r\n", then=pour(b"a: b\r\n" * 100)), "did not give it"),
    "continues for ever": (pour(b"HTTP/1.1 100 Continue\r\n\r\n"), "no progress"),
    "continues in drips": (drip(b"HTTP/1.1 100 Continue\r\n\r\n"), "no progress"),
    "stops within the body": (answer(head(content_length=10**6), BODY, then=hold), "no progress"),
    "drips the body": (answer(head(content_length=10**6), then=drip(BODY)), "no progress"),
    "drips a body of chunks": (answer(head(transfer_encoding="chunked"), then=drip(b"1\r\na\r\n")), "no progress"),
    "sends a body without end": (answer(head(), then=pour(BODY)), "over the limit of 2000000"),
    "sends chunks without end": (
        answer(head(transfer_encoding="chunked"), then=pour(b"2800\r\n" + BODY + b"\r\n")),
        "over the limit of 2000000",
    ),
    "announces too much": (answer(head(content_length=2 * 10**6 + 1), then=hold), "it has 2000001 bytes, over the"),
    "sends less than announced": (answer(head(content_length=len(BODY) + 1), BODY), "did not give it|closed the conn"),
    "breaks off a chunk": (answer(head(transfer_encoding="chunked"), b"2800\r\nabc"), "did not give it"),
    "garbles a chunk": (answer(head(transfer_encoding="chunked"), b"xyz\r\nabc", then=hold), "did not give it"),
    "announces a length that is no number": (answer(head(content_length="\xb2\xb3"), BODY), "did not give it"),
    "announces a negative length": (answer(head(content_length=-5), BODY), "did not give it"),
    "announces two lengths": (
        answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"),
        "give",
    ),
    "sends what was not asked for": (answer(head("206 Partial Content", content_length=5), b"abcde"), "HTTP 206"),
    "compresses": (answer(head(content_encoding="gzip"), gzip.compress(bytes(10**6))), "the encoding 'gzip'"),
    "compresses in two lines": (
        answer(
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-encoding: identity\r\n\r\n" + gzip.compress(BODY)
        ),
        "the encoding 'gzip'",
    ),
    "compresses twice": (answer(head(content_encoding="identity, br"), BODY), "the encoding 'br'"),
    "has nothing": (answer(head("204 No Content")), "HTTP 204"),
    "fails": (answer(head("500 Oh", content_length=0)), "HTTP 500 Internal Server Error"),
    "speaks no HTTP": (answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then=hold), "did not give it"),
    "sends an empty body": (answer(head(content_length=0)), r"it is empty \(0 bytes\)"),
    "redirects to itself": (redirect("{url}/again"), "more than 10 redirects"),
    "redirects to a file": (redirect("file:///etc/passwd"), "redirected to the protocol 'file'"),
    "redirects to ftp": (redirect("ftp://127.0.0.1/a"), "redirected to the protocol 'ftp'"),
    "redirects to data": (redirect("data:video/mp4;base64,AAAA"), "redirected to the protocol 'data'"),
    "redirects to nonsense": (redirect("http://[::1/"), "is not a URL"),
    "redirects to nowhere": (answer(head("302 Found", content_length=0)), "HTTP 302"),
    "redirects with a body without end": (
        answer(head("302 Found", location="/again"), then=pour(BODY)),
        "more than 10 redirects",
    ),
    "redirects with a dripping body": (
        answer(head("302 Found", location="/again"), then=drip(BODY)),
        "more than 10 redirects",
    ),
    "serves a playlist": (answer(head(), b"#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n"), "playlist"),
    "serves text": (answer(head(), b"hello " * 1000), "not a video"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_server_costs_no_more_than_its_limits_and_leaves_nothing(case, tmp_path, monkeypatch) -> None:
    behave, message = HOSTILE[case]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stall = STALL if message == "no progress" else PATIENCE
    limits = VideoLimits(download_bytes=2_000_000, stall_seconds=stall, web_seconds=20 * stall)
    with HostileServer(behave) as server:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(VideoReadError, match=message) as caught, OpenedSource(server.url, limits=limits) as opened:
            opened.container()
        assert caught.value.args[0].count("\n") == 0 and server.url in str(caught.value)
        # The sockets of the server's threads are in this process too; its own end of each may still be open.
        assert len(os.listdir("/proc/self/fd")) <= before + len(server.requests)
        assert server.sent < 16_000_000 * 11  # what the system's buffers take, of eleven answers at most
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_makes_a_little_progress_meets_the_limit_of_all_seconds() -> None:
    def trickle(connection, request, server) -> None:
        server.send(connection, head())
        while not server.ended.wait(0.05):
            server.send(connection, bytes(1 << 16))

    limits = VideoLimits(web_seconds=1.0, stall_seconds=30.0)
    with HostileServer(trickle) as server, pytest.raises(VideoReadError, match="web_seconds"):
        OpenedSource(server.url, limits=limits)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("web") / "video.mp4", 20).read_bytes()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_video_is_fetched_whole_and_every_container_on_it_stands_alone(
    video, chunked, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parts = [head(content_length=len(video)), video]
    if chunked:
        parts = [head(transfer_encoding="chunked"), b"%x\r\n" % len(video) + video + b"\r\n0\r\n\r\n"]
    with HostileServer(answer(*parts)) as server:
        with OpenedSource(f"{server.url}/v.mp4") as opened, opened.container() as one, opened.container() as other:
            assert opened.name == f"'{server.url}/v.mp4'"
            frames = [number_of(frame.to_ndarray(format="rgb24")) for frame in one.decode(video=0)]
            assert frames == list(range(20)) == [round(25 * frame.time) for frame in other.decode(video=0)]
        assert len(server.requests) == 1
        assert b"accept-encoding: identity" in server.requests[0].lower()
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_followed_and_a_password_goes_to_its_own_host_alone(video) -> None:
    elsewhere = answer(head(content_length=len(video)), video)
    with HostileServer(elsewhere) as target, HostileServer(redirect(f"{target.url}/v.mp4?key=hidden")) as server:
        with OpenedSource(server.url.replace("//", "//me:secret@") + "/v.mp4?token=secret") as opened:
            assert len(opened.head) == 1024 and "secret" not in opened.name
        assert b"Authorization: Basic bWU6c2VjcmV0" in server.requests[0]
        assert b"GET /v.mp4?key=hidden " in target.requests[0] and b"uthorization" not in target.requests[0]


def test_passwords_and_tokens_stay_out_of_messages() -> None:
    with HostileServer(answer(head("404 Not Found", content_length=0))) as server:
        for read in (OpenedSource, open_picture, lambda url: fetch(url, io.BytesIO())):
            with pytest.raises(VideoReadError, match="HTTP 404 Not Found") as caught:
                read(server.url.replace("//", "//me:secret@") + "/v.mp4?token=secret#secret")
            assert "secret" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_that_names_itself() -> None:
    message = r"could not be stored in the temporary folder \(.*No space left"
    with (
        HostileServer(answer(head(), BODY * 10)) as server,
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(VideoReadError, match=message),
    ):
        fetch(server.url, full)


def resolve_to(addresses, monkeypatch) -> None:
    """Every name leads to these addresses. Connections to any of them go nowhere."""
    entries = [(socket.AF_INET6 if ":" in one else socket.AF_INET, 1, 6, "", (one, 80)) for one in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: entries)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
    + ["255.255.255.255", "::1", "::", "fe80::1%2", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"]
    + ["64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "fec0::2", "64:ff9b:1::1", "240.0.0.1"],
)
def test_a_name_that_leads_to_an_address_that_is_not_public_is_refused(address, monkeypatch) -> None:
    connected = []
    monkeypatch.setattr(socket, "create_connection", lambda place, *arguments, **options: connected.append(place))
    for found in ([address], ["93.184.216.34", address]):
        resolve_to(found, monkeypatch)
        for read in (OpenedSource, open_picture):
            with pytest.raises(VideoReadError, match="is not public; allow_private_hosts is False"):
                read("http://example.com/v.mp4", allow_private_hosts=False)
    assert connected == []


def test_a_public_address_of_this_machine_is_refused(monkeypatch) -> None:
    resolve_to(["93.184.216.34"], monkeypatch)
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: None)
    monkeypatch.setattr(socket.socket, "getsockname", lambda *arguments: ("93.184.216.34", 40000))
    with pytest.raises(VideoReadError, match="is not public; allow_private_hosts is False"):
        OpenedSource("http://example.com/v.mp4", allow_private_hosts=False)


def test_a_machine_without_the_newer_protocol_takes_the_other_address(monkeypatch) -> None:
    tried = []

    def connect(place, *arguments, **options) -> Never:
        tried.append(place[0])
        raise OSError("no network here")

    def make(family, *arguments) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError("Address family not supported by protocol")
        return real(family, *arguments)

    real = socket.socket
    resolve_to(["2606:2800:220:1::1", "93.184.216.34"], monkeypatch)
    monkeypatch.setattr(socket, "socket", make)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(VideoReadError, match="no network here"):
        OpenedSource("http://example.com/v.mp4", allow_private_hosts=False)
    assert tried == ["2606:2800:220:1::1", "93.184.216.34"]


def test_a_second_address_is_tried_where_the_first_never_answers(monkeypatch) -> None:
    tried = []

    def connect(place, timeout=None, **options) -> Never:
        tried.append((place[0], timeout))
        if len(tried) == 1:
            raise TimeoutError("timed out")
        raise OSError("no network here")

    resolve_to(["2606:2800:220:1::1", "93.184.216.34"], monkeypatch)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(VideoReadError, match="no network here"):
        OpenedSource("http://example.com/v.mp4", allow_private_hosts=False)
    assert [address for address, _ in tried] == ["2606:2800:220:1::1", "93.184.216.34"] and tried[0][1] < 20


@pytest.mark.parametrize("allow_private_hosts", [True, False])
def test_all_addresses_of_a_host_share_one_limit_of_seconds(allow_private_hosts, monkeypatch) -> None:
    tried, clock = [], SimpleNamespace(now=0.0)

    def connect(place, timeout, **options) -> Never:
        tried.append(place[0])
        clock.now += timeout
        raise TimeoutError("timed out")

    addresses = [f"93.184.216.{number}" for number in range(8)]
    resolve_to(addresses, monkeypatch)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: clock.now))
    for given in (VideoLimits(stall_seconds=10.0), VideoLimits(web_seconds=10.0)):
        tried.clear()
        clock.now = 0.0
        with pytest.raises(VideoReadError, match="over the limit of 10"):
            OpenedSource("http://example.com/v.mp4", limits=given, allow_private_hosts=allow_private_hosts)
        assert tried == addresses and 10 < clock.now < 10.2


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f000001", "127.1", "[::1]", "localhost"])
def test_this_machine_is_refused_however_it_is_written(host) -> None:
    with HostileServer(answer(head(), BODY)) as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises(VideoReadError, match="is not public"):
            fetch(f"http://{host}:{port}/", io.BytesIO(), allow_private_hosts=False)
        assert server.requests == []


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch) -> None:
    """A name that leads elsewhere when it is asked for again gains nothing."""
    connected = []

    def connect(place, *arguments, **options) -> Never:
        connected.append(place)
        raise OSError("no network here")

    resolve_to(["93.184.216.34", "2606:2800:220:1::1"], monkeypatch)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(VideoReadError, match="no network here"):
        OpenedSource("http://example.com/v.mp4", allow_private_hosts=False)
    assert connected == [("93.184.216.34", 80), ("2606:2800:220:1::1", 80)]


def test_a_redirect_from_a_public_host_to_a_private_one_is_refused(monkeypatch) -> None:
    with HostileServer(answer(head(), BODY)) as private, HostileServer(redirect(private.url)) as server:
        really = limits._public_addresses
        monkeypatch.setattr(
            limits,
            "_public_addresses",
            lambda host, port, *rest, **options: (
                ["127.0.0.1"] if str(port) == server.url.rpartition(":")[2] else really(host, port, *rest, **options)
            ),
        )
        with pytest.raises(VideoReadError, match="is not public"):
            OpenedSource(server.url, allow_private_hosts=False)
        assert len(server.requests) == 1 and private.requests == []


def test_a_proxy_may_stand_in_the_private_network_but_what_it_fetches_may_not(video, monkeypatch) -> None:
    with HostileServer(answer(head(content_length=len(video)), video)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url.replace("//", "//user:word@"))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with OpenedSource("http://93.184.216.34/v.mp4", allow_private_hosts=False) as opened:
            assert len(opened.head) == 1024
        assert proxy.requests[0].startswith(b"GET http://93.184.216.34/v.mp4 HTTP/1.1")
        assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in proxy.requests[0]
        with OpenedSource("http://[2606:2800:220:1::1]:8080/v.mp4", allow_private_hosts=False):
            assert proxy.requests[1].count(b"ost: ") == 1 and b"Host: [2606:2800:220:1::1]:8080" in proxy.requests[1]
        for url in (
            "http://127.0.0.1/",
            "http://10.0.0.1/",
            "http://localhost/",
            "http://metadata.internal/",
            "http://intranet/",
        ):
            with pytest.raises(VideoReadError, match="is not public"):
                OpenedSource(url, allow_private_hosts=False)
        assert len(proxy.requests) == 2


@pytest.mark.parametrize("around", ["{host}", "elsewhere, {host}:{port}", "{host}:{port}"])
def test_a_host_that_no_proxy_names_with_its_port_or_without_is_asked_itself(video, around, monkeypatch) -> None:
    serve = answer(head(content_length=len(video)), video)
    with HostileServer(serve) as proxy, HostileServer(serve) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, around.format(host=host, port=port))
        OpenedSource(server.url).close()
        assert len(server.requests) == 1 and proxy.requests == []
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, f"{host}:1")
        OpenedSource(server.url).close()
        assert len(server.requests) == len(proxy.requests) == 1


def test_a_picture_from_a_server_is_fetched_within_the_same_limits() -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), "red").save(file, "PNG")
    with HostileServer(answer(head(content_length=len(file.getvalue())), file.getvalue())) as server:
        assert open_picture(server.url).size == (8, 6)
        with pytest.raises(VideoReadError, match="over the limit of 10;"):
            open_picture(server.url, limits=VideoLimits(download_bytes=10))
        with pytest.raises(VideoReadError, match="pictures of 8 x 6 have 48 pixels, over the limit of 40;"):
            open_picture(server.url, limits=VideoLimits(frame_pixels=40))
