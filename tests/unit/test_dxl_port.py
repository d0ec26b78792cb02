"""The serial port on a real pty, and the program that may provide one."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import sys
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from robotsac.clock import MonotonicClock
from robotsac.errors import ArmSetupError, BusLost, BusTimeout, DriverUnavailable
from robotsac_hardware.port import SerialPort
from robotsac_hardware.port_command import PortProgram

CLOCK = MonotonicClock()
MS = 1_000_000


def opened(name: str, folder: Path = Path("/nonexistent"), bus_rate_hz: int = 250) -> SerialPort:
    return SerialPort(name, 3_000_000, CLOCK, bus_rate_hz, usb_serial_folder=folder)


@pytest.fixture
def line() -> Iterator[tuple[int, int, str]]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, slave, os.ttyname(slave)
    for fd in (master, slave):
        try:
            os.close(fd)
        except OSError:
            continue


def test_bytes_go_both_ways(line: tuple[int, int, str]) -> None:
    master, _, name = line
    port = opened(name)
    port.write(b"\xff\xff\xfd\x00ping")
    assert os.read(master, 100) == b"\xff\xff\xfd\x00ping"
    os.write(master, bytes(range(256)))
    received = b""
    while len(received) < 256:
        received += port.read(100, CLOCK.now_ns() + 1000 * MS)
    assert received == bytes(range(256))
    port.close()


def test_read_returns_empty_at_the_deadline_and_not_before(line: tuple[int, int, str]) -> None:
    port = opened(line[2])
    start_ns = CLOCK.now_ns()
    assert port.read(10, start_ns + 5 * MS) == b""
    assert CLOCK.now_ns() - start_ns >= 5 * MS
    port.close()


def test_a_deadline_in_the_past_still_looks_once(line: tuple[int, int, str]) -> None:
    port = opened(line[2])
    os.write(line[0], b"x")
    time.sleep(0.01)  # a pty hands bytes over in its own time
    assert port.read(10, 0) == b"x"
    assert port.read(10, 0) == b""
    port.close()


def test_discard_input_forgets_what_came_before(line: tuple[int, int, str]) -> None:
    port = opened(line[2])
    os.write(line[0], b"late")
    time.sleep(0.01)
    port.discard_input()
    assert port.read(10, 0) == b""
    port.close()


def test_a_full_output_buffer_is_a_timeout_not_a_hang(line: tuple[int, int, str]) -> None:
    port = opened(line[2])
    with pytest.raises(BusTimeout, match="did not take"):
        port.write(bytes(1 << 20))
    port.close()


def test_a_port_that_goes_away_is_lost_for_every_call(line: tuple[int, int, str]) -> None:
    master, slave, name = line
    port = opened(name)
    os.close(slave)
    os.close(master)
    with pytest.raises(BusLost, match=name):
        port.read(10, CLOCK.now_ns() + 1000 * MS)
    with pytest.raises(BusLost):
        port.write(b"x")
    with pytest.raises(BusLost):
        port.discard_input()
    port.close()


def test_a_closed_port_is_lost_and_closing_twice_is_fine(line: tuple[int, int, str]) -> None:
    closed = []
    port = SerialPort(line[2], 57_600, CLOCK, 250, on_close=lambda: closed.append(1))
    port.close()
    port.close()
    assert closed == [1]
    for call in (lambda: port.write(b"x"), lambda: port.read(1, 0), port.discard_input):
        with pytest.raises(BusLost):
            call()


def test_a_missing_port_names_itself_and_the_twin() -> None:
    with pytest.raises(DriverUnavailable, match="port /dev/ttyUSB99 is not there") as caught:
        opened("/dev/ttyUSB99")
    assert caught.value.command == "--robot arm0-twin", "for the end of what was typed"


@pytest.mark.parametrize("what", ["file", "folder", "fifo"])
def test_what_is_no_serial_device_is_told_apart_from_a_port_in_use(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    {"file": path.touch, "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}[what]()
    with pytest.raises(DriverUnavailable, match=f"port {path} is not a serial device") as caught:
        opened(str(path))
    assert caught.value.command.startswith("find /dev ")


def test_a_device_with_a_space_in_its_name_is_quoted(tmp_path: Path, line: tuple[int, int, str]) -> None:
    link = tmp_path / "left arm"
    link.symlink_to(line[2])
    first = opened(str(link))
    with pytest.raises(DriverUnavailable) as caught:
        opened(str(link))
    assert caught.value.command == f"fuser -v '{link}'"
    first.close()


def test_a_port_in_use_says_how_to_find_the_other_program(line: tuple[int, int, str]) -> None:
    first = opened(line[2])
    with pytest.raises(DriverUnavailable, match="in use by another program") as caught:
        opened(line[2])
    assert caught.value.command == f"fuser -v {line[2]}"
    first.close()
    opened(line[2]).close()


def latency_folder(tmp_path: Path, name: str, text: str) -> Path:
    folder = tmp_path / Path(name).name
    folder.mkdir()
    (folder / "latency_timer").write_text(text)
    return tmp_path


def test_an_adapter_that_holds_bytes_back_is_refused_with_the_command_that_helps(
    line: tuple[int, int, str], tmp_path: Path
) -> None:
    folder = latency_folder(tmp_path, line[2], "16\n")
    with pytest.raises(ArmSetupError, match="latency timer 16 ms > 1 ms") as caught:
        opened(line[2], folder)
    assert caught.value.command == f"echo 1 | sudo tee {folder / Path(line[2]).name / 'latency_timer'}"
    opened(line[2], folder, bus_rate_hz=50).close()  # and it was let go of


def test_a_quick_adapter_is_accepted(line: tuple[int, int, str], tmp_path: Path) -> None:
    opened(line[2], latency_folder(tmp_path, line[2], "1\n")).close()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_names_its_port_and_ends_when_told() -> None:
    program = PortProgram(python('import sys; print(\'{"port": "/dev/pts/77"}\', flush=True); sys.stdin.read()'), CLOCK)
    assert program.start() == "/dev/pts/77"
    process = program._process
    assert process is not None
    assert os.getsid(process.pid) == process.pid  # Ctrl-C in our terminal does not reach it
    program.close()
    program.close()
    assert process.returncode is not None


def test_a_program_that_ignores_being_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robotsac_hardware.port_command.END_DEADLINE_S", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        'print(\'{"port": "x"}\', flush=True); time.sleep(60)'
    )
    program = PortProgram(python(code), CLOCK)
    program.start()
    process = program._process
    assert process is not None
    program.close()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("import sys; sys.exit('first\\nno free pty')", "ended without naming a port", "no free pty"),
        ("print('hello', flush=True)", "printed 'hello'", "nothing on stderr"),
        ("print('{\"port\": 3}', flush=True)", "where a port was expected", ""),
        ("print('[1]', flush=True)", "where a port was expected", ""),
        ("import time; time.sleep(60)", "no port within 0.5 s", ""),
    ],
)
def test_a_program_without_a_port_is_unavailable_in_its_own_words(code: str, message: str, reason: str) -> None:
    program = PortProgram(python(code), CLOCK)
    deadline_s = 0.5 if "sleep" in code else 20.0
    with pytest.raises(DriverUnavailable) as caught:
        program.start(deadline_s)
    assert message in caught.value.message
    assert reason in caught.value.reason
    assert program._process is None


def test_a_program_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(DriverUnavailable, match="'/nonexistent/program' cannot be run") as caught:
        PortProgram(["/nonexistent/program"], CLOCK).start()
    assert caught.value.command == "--robot arm0-twin", "running it again would not help"


def test_a_program_that_gave_no_port_can_be_tried_by_hand() -> None:
    with pytest.raises(DriverUnavailable) as caught:
        PortProgram(python("print('a b')"), CLOCK).start()
    assert shlex.split(caught.value.command) == python("print('a b')")


def test_robotsac_is_run_with_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that a port command works in a virtual environment that nobody activated."""
    recorder = tmp_path / "python"
    recorder.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps({{'port': ' '.join(sys.argv[1:])}}))\n"
    )
    recorder.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(recorder))
    program = PortProgram(["robotsac", "twin", "--json"], CLOCK)
    assert program.start() == "-m robotsac twin --json"
    program.close()


def test_a_long_complaint_does_not_block_the_program() -> None:
    code = f"import sys; sys.stderr.write('x' * 1_000_000); print({json.dumps(json.dumps({'port': 'p'}))}, flush=True)"
    program = PortProgram(python(code), CLOCK)
    assert program.start() == "p"
    program.close()
