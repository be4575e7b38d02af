"""The train panel: start, stop and resume a run, and watch it through its events.

Everything shown comes from the run's folder, so any panel can be attached to any run; the panel
never touches the trainer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.recipe import Recipe
from tunebook.training.view import RunView
from tunebook.widgets._figure import run_figure
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio
from tunebook.widgets._text import duration_text, strategy_words

SHORTEST = 0.2  # seconds between two updates of the page
IDLE = 1.0  # seconds between two looks at a run that nobody works on
ACTIVE = ("preparing", "running", "stopping")


class TrainPanel(Panel):
    """Start, stop, resume and watch one run.

    Args:
        recipe: what Start trains; None takes the run's or the defaults.
        run: a run to watch, of this or another process, finished or not.
    """

    module = "train"
    purpose = "train"

    state = t.Unicode("new", help="As `Run.state`; `new` without a run.").tag(sync=True)
    phase = t.Unicode(help="What the run does just now.").tag(sync=True)
    run_name = t.Unicode().tag(sync=True)
    run_path = t.Unicode().tag(sync=True)
    device = t.Unicode().tag(sync=True)
    step = t.Int(0).tag(sync=True)
    total = t.Int(0).tag(sync=True)
    eta = t.Float(None, allow_none=True, help="Seconds to the end.").tag(sync=True)
    seconds = t.Float(0.0, help="Seconds spent in steps.").tag(sync=True)
    first_loss = t.Float(None, allow_none=True).tag(sync=True)
    last_loss = t.Float(None, allow_none=True).tag(sync=True)
    learning_rate = t.Float(None, allow_none=True).tag(sync=True)
    tokens_per_second = t.Float(None, allow_none=True).tag(sync=True)
    peak = t.Int(0, help="Highest number of bytes in tensors.").tag(sync=True)
    forecast_total = t.Int(0, help="What the plan said it would need, in bytes.").tag(sync=True)
    gpu_busy = t.Unicode(help="Such as `96 %, 1,414 kernels a step`; empty on a CPU.").tag(
        sync=True
    )
    strategy: t.List[Any] = t.List(help="How the plan runs it, in words.").tag(sync=True)
    loss_points = t.Bytes(help="float32 columns: step, loss, smoothed.").tag(sync=True)
    memory_points = t.Bytes(help="float32 columns: step, allocated, peak.").tag(sync=True)
    evaluation_points = t.Bytes(help="float32 columns: step, loss.").tag(sync=True)
    messages: t.List[Any] = t.List(help="What happened: kind, step, text, do.").tag(sync=True)

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        run: Any = None,
        studio: Studio | None = None,
        **traits: Any,
    ):
        traits.setdefault("heading", "Train")
        traits.setdefault("lead", "Start, watch the loss fall, stop at any time: nothing is lost.")
        self._follower: Any = None
        self._shown_at = 0.0
        if recipe is None and run is not None and studio is None:
            recipe = run.recipe
        super().__init__(recipe, studio=studio, **traits)
        self.studio.observe(self._run_changed, "run")
        if run is not None and run is not self.studio.run:
            self.studio.run = run
        elif self.studio.run is not None:
            self._run_changed()
        self._say_state()

    @property
    def run(self) -> Any:
        """The run that is shown, or None."""
        return self.studio.run

    def do_start(self) -> None:
        """The Start button: a new run of the recipe as it stands."""
        from tunebook.training import Run

        if self.run is not None and self.run.alive:
            return
        studio = self.studio
        studio.run = Run.create(self.recipe, root=studio.root, rows=studio.rows).start()

    def do_resume(self) -> None:
        """The Resume button: continue from the last checkpoint."""
        self.run.resume()
        self._say_state()

    def do_stop(self) -> None:
        """The Stop button: end after the step that runs now, with a checkpoint."""
        if self.run is not None:
            self.run.stop()
            self._say_state()

    def figure(self) -> Any:
        """Loss and memory of the run as a plotly figure that stays in the notebook."""
        return run_figure(self._folded(), title=self.run_name, forecast=self.forecast_total)

    def text_lines(self) -> list[str]:
        """State, losses, how it is run and the last messages."""
        losses = ""
        if self.first_loss is not None and self.last_loss is not None:
            losses = f"loss {self.first_loss:.4f} → {self.last_loss:.4f}"
        busy = f"GPU busy {self.gpu_busy}" if self.gpu_busy else ""
        plan = f"plan: {', '.join(self.strategy)}" if self.strategy else ""
        said = [f"  step {m['step']}: {m['text']} {m['do']}".rstrip() for m in self.messages[-5:]]
        return [self.summary, losses, busy, plan, self.run_path, *said]

    def close(self) -> None:
        """Stop watching and take the view away; the run goes on."""
        self._follower = None
        super().close()

    def _run_changed(self, _change: object = None) -> None:
        run = self.run
        self.refresh_code()
        if run is None:
            return
        self.show(run_name=run.name, run_path=str(run.path), error={})
        self.show(**self._folded().traits())
        self._say_state()
        self._follower = token = object()
        self.studio.thread(lambda: self._follow(run, token))

    def _follow(self, run: Any, token: object) -> None:
        """Show the run's events as they come, at most five times a second."""
        while self._follower is token:
            view = RunView()
            self._shown_at = 0.0

            def settled(view: RunView = view) -> bool:
                self._show_view(view)
                return self._follower is not token or self.state not in ACTIVE

            for event in run.log.follow(until=settled):
                view.add(event)
                self._show_view(view)
            self._show_view(view, now=True)
            while self._follower is token and run.state not in ACTIVE:
                time.sleep(IDLE)

    def _show_view(self, view: RunView, *, now: bool = False) -> None:
        clock = time.monotonic()
        if not now and clock - self._shown_at < SHORTEST:
            return
        self._shown_at = clock
        if view.dirty:
            self.show(**view.traits())
        self._say_state()

    def _say_state(self) -> None:
        run = self.run
        state = "new" if run is None else run.state
        plan = None if run is None else run.plan
        failure = getattr(run, "error", None)
        shown = {
            "state": state,
            "phase": getattr(run, "phase", ""),
            "forecast_total": 0 if plan is None else int(plan.forecast.total),
            "strategy": [] if plan is None else strategy_words(plan.strategy),
        }
        if failure is not None:
            shown["error"] = failure.to_dict(traceback=True)
        self.show(**shown, summary=self._one_line(state))

    def _one_line(self, state: str) -> str:
        if self.run is None:
            return "Not started"
        where = f"step {self.step} of {self.total}" if self.total else self.phase
        left = f"{duration_text(self.eta)} left" if self.eta and state == "running" else ""
        loss = f"loss {self.last_loss:.3f}" if self.last_loss is not None else ""
        return " · ".join(part for part in (state.capitalize(), where, loss, left) if part)

    def _folded(self) -> RunView:
        view = RunView()
        for event in self.run.log.read() if self.run is not None else []:
            view.add(event)
        return view


def watch(run: Any) -> TrainPanel:
    """Watch a run: a `Run`, or the folder of one, of this or another process, finished or not.

    Raises:
        RunMissing: the path is not a run folder.
    """
    if isinstance(run, str | Path):
        from tunebook.training import open_run

        run = open_run(run)
    return TrainPanel(run=run)
