"""What is said of a template that can't be used."""


class TemplateFault(Exception):
    """A template that can't be used: where and why."""

    def __init__(self, file: str, line: int, why: str) -> None:
        self.file, self.line, self.why = file, line, why
        super().__init__(f"{file}:{line}: {why}")
