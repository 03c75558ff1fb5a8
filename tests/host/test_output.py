"""Standard output that cannot take what is printed, in programs of their own."""

import os
import subprocess
import sys

import pytest

PRINT = """
import sys
from fisher_jax.host.output import keep_writing
keep_writing()
for _ in range(100_000):
    print("Tr(F) 812 ± 9 ━━")
print("end", file=sys.stderr)
sys.exit(7)
"""


def start(code=PRINT, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", code], **options)


@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("ascii", b"Tr(F) 812 ? 9 ??"),
        ("latin-1", b"Tr(F) 812 \xb1 9 ??"),
        ("utf-8", "Tr(F) 812 ± 9 ━━".encode()),
    ],
)
def test_a_character_that_the_encoding_lacks_is_replaced(encoding, line):
    process = start(env={**os.environ, "PYTHONIOENCODING": encoding})
    output, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (7, b"end\n")
    assert set(output.splitlines()) == {line}


def test_the_program_goes_on_when_its_reader_has_gone():
    process = start()
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read().decode().splitlines()
    assert process.wait(timeout=30) == 7
    assert error[0].startswith(
        "Warning: cannot write to standard output (Broken pipe); "
    )
    assert error[1:] == ["end"]


def test_a_full_disk_ends_the_output_and_not_the_program():
    with open("/dev/full", "w") as full:
        process = start(stdout=full)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 7
    assert error.decode().startswith(
        "Warning: cannot write to standard output (No space left"
    )


def test_error_output_may_go_away_too():
    with open("/dev/full", "w") as full:
        process = start(stdout=full, stderr=full)
        assert process.wait(timeout=30) == 7


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_output_that_was_closed_before_the_start(closed, tmp_path):
    """What the program opens then gets the number of standard output."""
    code = PRINT.replace("sys.exit", f"open({str(tmp_path / 'x')!r}, 'w'); sys.exit")
    shell = "exec " + " ".join(f"{number}>&-" for number in closed)
    process = subprocess.run(
        ["sh", "-c", f'{shell}; exec "$@"', "sh", sys.executable, "-c", code],
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert process.returncode == 7
    assert (tmp_path / "x").read_text() == ""


def test_a_terminal_is_still_one():
    code = "from fisher_jax.host.output import keep_writing as k; import sys; k();"
    code += "print(sys.stdout.isatty())"
    assert start(code).communicate(timeout=30)[0] == b"False\n"
