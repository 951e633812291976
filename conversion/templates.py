"""
Chat templates that mark what the assistant says, as training needs it. Those that some sources come with do not; where
one writes the same chats as a template below, that takes its place.
"""

from transformers.utils.chat_template_utils import render_jinja_template

_TURNS = """\
{%- macro body(message) -%}
{%- if message['content'] is string -%}{{- BEFORE_TEXT + message['content'] -}}
{%- else -%}
{%- if message['content'][0]['type'] != 'image' -%}{{- BEFORE_TEXT -}}{%- endif -%}
{%- for item in message['content'] -%}
{%- if item['type'] == 'image' -%}{{- IMAGE -}}
{%- elif item['type'] == 'video' -%}{{- VIDEO -}}
{%- elif item['type'] == 'text' -%}{{- item['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- END -}}
{%- endmacro -%}
{{- FIRST -}}
{%- for message in messages -%}
{{- HEAD -}}
{%- if message['role'] == 'assistant' -%}{%- generation -%}{{- body(message) -}}{%- endgeneration -%}
{%- else -%}{{- body(message) -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ASK -}}{%- endif -%}
"""
SMOLVLM = {
    "FIRST": "'<|im_start|>'",
    "HEAD": "message['role'] | capitalize + ':'",
    "BEFORE_TEXT": "' '",
    "IMAGE": "'<image>'",
    "VIDEO": "'<video>'",
    "END": "'<end_of_utterance>'",
    "ASK": "'Assistant:'",
}
INTERNVL = {
    "FIRST": "''",
    "HEAD": "'<|im_start|>' + message['role'] + '\\n'",
    "BEFORE_TEXT": "''",
    "IMAGE": "'<IMG_CONTEXT>\\n'",
    "VIDEO": "'<video>\\n'",
    "END": "'<|im_end|>'",
    "ASK": "'<|im_start|>assistant\\n'",
}


def _chat(*turns: tuple[str, ...]) -> list[dict]:
    """Turns of a role and its blocks: `image`, `video`, or a text."""
    kinds = ("image", "video")
    return [
        {
            "role": role,
            "content": [{"type": item} if item in kinds else {"type": "text", "text": item} for item in items],
        }
        for role, *items in turns
    ]


PROBES = (
    _chat(("user", "Hello")),
    _chat(("system", "Be short."), ("user", "image", "What?"), ("assistant", "A dog."), ("user", "Sure?")),
    _chat(("user", "video", "When? ", "Where?"), ("assistant", "Now."), ("user", "video", "video", "And?")),
)


def trainable(template: str, parts: dict[str, str]) -> str:
    """
    A template with the assistant's turns marked, if it writes the same chats; else the one that was given.

    Args:
        template (`str`): The source's.
        parts (`dict`): What the marked one is made of: expressions of Jinja for each name in capitals.
    """
    if "{% generation" in template or "{%- generation" in template:
        return template
    marked = _TURNS
    for name, expression in parts.items():
        marked = marked.replace(name, expression)
    for asks in (False, True):
        texts = [_rendered(each, asks) for each in (template, marked)]
        if texts[0] is None or texts[0] != texts[1]:
            return template
    return marked


def _rendered(template: str, add_generation_prompt: bool) -> list[str] | None:
    try:
        chats = [[dict(message) for message in chat] for chat in PROBES]
        return render_jinja_template(chats, chat_template=template, add_generation_prompt=add_generation_prompt)[0]
    except Exception:  # a template is a program, which may raise anything on a chat that it does not know
        return None


__all__ = ["INTERNVL", "SMOLVLM", "trainable"]
