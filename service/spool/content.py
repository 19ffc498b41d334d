"""How much content one message may hold (POSTROOM_MAX_MESSAGE_BYTES), by whichever door it comes.

It counts what was handed in: files and texts as they are, in octets. What a template makes of its variables has a limit of
its own, and how large the finished message may be is for the relays to say (spool/plan).
"""

from service.errors import PayloadTooLarge
from service.spool.values import Submission


def check_content(submission: Submission, most: int) -> None:
    """Raises PayloadTooLarge when it holds more than `most` octets."""
    texts = [submission.html, submission.text, submission.amp, *[each.content for each in submission.alternatives]]
    if submission.calendar is not None:
        texts.append(submission.calendar.content)
    files = sum([len(each.content) for each in submission.attachments])
    check_octets(files + sum([len(text.encode()) for text in texts if text]), most)


def check_octets(octets: int, most: int) -> None:
    """The same for what is counted already."""
    if octets > most:
        raise PayloadTooLarge(f"The content has {octets} octets; at most {most} (POSTROOM_MAX_MESSAGE_BYTES).")
