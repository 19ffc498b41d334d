"""The first form of a new template: it renders, passes the check, and shows what can be changed."""

_TOML = """\
description = "What this mail is for."
locale = "en"
subject = "Hello {{{{ name }}}}"
# ttl = "1h"                  # give up after this, unless the request says otherwise
# priority = "high"           # high, normal or low
# unsubscribe = "newsletter"  # a category that readers can leave; then give unsubscribe_url when sending

# Names and kinds: string, integer, number, boolean, date, datetime, email, url, amount, currency. "string?" may be
# absent, [ "string" ] is a list, a table is an object. JSON Schema works too: begin with type = "object".
[variables]
name = "string"
link = "url?"

[sample]
name = "Ada"
link = "https://example.com/{name}"
"""
_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hello {{ name }}</title>
<style>
.sheet { max-width: 560px; margin: 0 auto; padding: 32px 24px; font: 16px/1.6 sans-serif; color: #222222; }
.button { display: inline-block; padding: 12px 20px; background: #0b5ea8; color: #ffffff; text-decoration: none; }
</style>
</head>
<body>
<div class="sheet">
<p>Hello {{ name }},</p>
<p>write what this mail says.</p>
{% if link is defined %}
<p><a class="button" href="{{ link|url }}">Go on</a></p>
{% endif %}
</div>
</body>
</html>
"""
_TEXT = """\
Hello {{ name }},

write what this mail says.
{% if link is defined %}

Go on: {{ link }}
{% endif %}
"""
_ZH_TOML = 'subject = "{{ name }}，您好"\n\n[sample]\nname = "林晓"\nlink = "https://example.com/zh"\n'
_ZH_HTML = (
    _HTML.replace('lang="en"', 'lang="zh-CN"')
    .replace("Hello {{ name }},", "{{ name }}，您好！")
    .replace("Hello {{ name }}", "{{ name }}，您好")
    .replace("write what this mail says.", "在这里写邮件的内容。")
    .replace("Go on", "继续")
)
_ZH_TEXT = (
    _TEXT.replace("Hello {{ name }},", "{{ name }}，您好！")
    .replace("write what this mail says.", "在这里写邮件的内容。")
    .replace("Go on: ", "继续：")
)


def scaffold(name: str, *, chinese: bool = True) -> dict[str, str]:
    """The files of a new template: path inside its folder -> text."""
    files = {"template.toml": _TOML.format(name=name), "html.j2": _HTML, "text.j2": _TEXT}
    if chinese:
        here = "locales/zh-CN"
        files |= {f"{here}/template.toml": _ZH_TOML, f"{here}/html.j2": _ZH_HTML, f"{here}/text.j2": _ZH_TEXT}
    return files
