"""The documents say what the code does."""

import re
import subprocess
import sys


def test_the_reference_is_what_the_code_says(project):
    done = subprocess.run(
        [sys.executable, project / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_link_of_the_documents_leads_somewhere(project):
    pages = [project / "README.md", *sorted((project / "docs").rglob("*.md"))]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http") and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(project)} -> {target}")
    assert broken == []


def test_readme_begins_with_the_two_commands_that_do_everything(project):
    block = (project / "README.md").read_text().split("```")[1].strip().splitlines()
    assert [line.split("#")[0].strip() for line in block[1:]] == [
        './setup.sh pytest -m "slurm or services" --deepops-cluster debian',
        "./setup.sh pytest tests/harness -n 2",
    ]
