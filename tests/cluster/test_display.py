import io
import re

import pytest
from rich.console import Console

from cluster.display import Display, clock

VALUES = {
    "time/fps": 650.0,
    "rollout/episodes": 1234.0,
    "rollout/ep_rew_mean": 9.5,
    "train/policy_gradient_loss": -0.0123,
    "train/value_loss": 0.25,
    "contrast/loss": 2.5,
    "contrast/accuracy": 0.431,
    "staleness/mean": 0.0,
}


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=30, _environ={})


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_lines_are_plain_and_whole() -> None:
    console = plain()
    with Display("curl_ppo", 500_000, console=console, seconds_per_line=0.0) as display:
        display.update(125_000, VALUES)
    title, line = printed(console).splitlines()
    assert title == "curl_ppo"
    assert re.fullmatch(
        r"env steps 125,000 of 500,000 \(25%\)  env steps/s 650  episodes 1,234  return 9\.50  policy loss -0\.0123  "
        r"value loss 0\.2500  contrast loss 2\.500  accuracy 43\.1%  lag 0\.00  time 0:0\d  left 9:37",
        line,
    )


def test_the_verdict_is_under_the_table_and_at_the_end_of_lines() -> None:
    console = plain()
    with Display("ppo", 100, console=console, seconds_per_line=0.0) as display:
        display.update(50, {}, "the driver limits it")
        display.update(100, {}, "the learners limit it")
    assert printed(console).splitlines()[-1] == "the learners limit it"
    assert "driver" not in printed(console), "of late"
    console = terminal()
    with Display("ppo", 100, console=console) as display:
        display.update(50, {}, "the learners limit it")
    assert "the learners limit it" in printed(console)


def test_lines_are_rare_but_the_last_numbers_are_always_said() -> None:
    console = plain()
    with Display("ppo", 100, console=console, seconds_per_line=60.0) as display:
        for steps in range(10, 101, 10):
            display.update(steps, {})
    assert [line.split("  ")[0] for line in printed(console).splitlines()[1:]] == ["env steps 100 of 100 (100%)"]


def test_only_tags_that_exist_are_shown() -> None:
    console = plain()
    with Display("ppo", 100, console=console, seconds_per_line=0.0) as display:
        display.update(10, {"train/value_loss": 1.0})
        display.update(20, {"rollout/ep_rew_mean": 5.0})
    _, first, second = printed(console).splitlines()
    assert "return" not in first
    assert "contrast" not in second
    assert "value loss 1.0000" in second, "a value stays until it is given again"


def test_a_note_is_a_line_of_its_own_and_kept_literally() -> None:
    for console in (plain(), terminal()):
        with Display("ppo", 100, console=console) as display:
            display.note("saved [red]checkpoint[/red]")
        assert "saved [red]checkpoint[/red]\n" in printed(console)


def test_a_terminal_gets_a_table() -> None:
    console = terminal()
    with Display("curl_ppo on ALE/Breakout-v5", 500_000, console=console) as display:
        display.update(125_000, VALUES)
    text = printed(console)
    for words in ("curl_ppo on ALE/Breakout-v5", "125,000 of 500,000 (25%)", "9.50", "43.1%", "time left", "9:37", "━"):
        assert words in text


def test_rate_is_measured_where_the_metrics_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    display, now = Display("ppo", 10_000, console=plain()), [0.0]
    monkeypatch.setattr("cluster.display.time.monotonic", lambda: now[0])
    assert display.steps_per_second is None
    for second in range(100):
        now[0] = float(second)
        display.update(5_000 + (10 * second if second < 60 else 600 + 50 * (second - 60)), {})
    assert display.steps_per_second == pytest.approx(50.0), "of late, and not from 0 in a resumed run"


def test_an_error_inside_is_not_swallowed_and_the_terminal_is_given_back() -> None:
    console = terminal()
    with pytest.raises(KeyboardInterrupt), Display("ppo", 100, console=console):
        raise KeyboardInterrupt
    assert printed(console).endswith("\x1b[?25h"), "the cursor is shown again"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (760.0, "12:40"), (11_100.0, "3:05:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
