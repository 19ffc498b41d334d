"""What `make docs` writes is what is committed."""

import pytest

from docs.generate import ROOT, documents


@pytest.mark.parametrize("path", ["README.md", "docs/settings.md", "docs/lifecycle.md", "docs/relays.md"])
def test_the_generated_parts_of_the_docs_are_current(path: str) -> None:
    made = documents()[ROOT / path]
    assert (ROOT / path).read_text(encoding="utf-8") == made, "run `make docs` and commit"
