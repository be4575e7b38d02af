"""The train panel: start, pause, stop and resume a run, ask it, and watch it through its log.

Everything shown comes from the run's folder, so any panel can be attached to any run; the panel
never touches the trainer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import traitlets as t

from tunebook.curves import smooth
from tunebook.recipe import Recipe
from tunebook.training.view import RunView
from tunebook.widgets import _static
from tunebook.widgets._curve import loss_svg
from tunebook.widgets._figure import run_figure
from tunebook.widgets._kept import KeptView
from tunebook.widgets._overlay import Overlays
from tunebook.widgets._panel import Panel
from tunebook.widgets._state import Studio, in_colab
from tunebook.widgets._text import duration_text, strategy_words

SHORTEST = 0.2  # seconds between two updates of the page
IDLE = 1.0  # seconds between two looks at a run that nobody works on
SHARE = 0.005  # of the time goes into updates; what sends them in the kernel takes about as much
ACTIVE = ("preparing", "running", "paused", "stopping")
MOVING = ("preparing", "running", "stopping")


class TrainPanel(KeptView, Panel):
    """Start, pause, stop, resume and watch one run, beside others if you like.

    Args:
        recipe: what Start trains; None takes the run's or the defaults.
        run: a run to watch, of this or another process, finished or not.
    """

    module = "train"
    purpose = "train"
    parts = ("samples",)

    state = t.Unicode("new", help="As `Run.state`; `new` without a run.").tag(sync=True)
    phase = t.Unicode(help="What the run does just now.").tag(sync=True)
    requests: t.List[Any] = t.List(help="As `Run.requests`, sorted.").tag(sync=True)
    colab = t.Bool(False, help="Whether buttons wait for the cell to end.").tag(sync=True)
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
    gradient_norm = t.Float(None, allow_none=True).tag(sync=True)
    tokens_per_second = t.Float(None, allow_none=True).tag(sync=True)
    peak = t.Int(0, help="Highest number of bytes in tensors.").tag(sync=True)
    forecast_total = t.Int(0, help="What the plan said it would need, in bytes.").tag(sync=True)
    forecast_error = t.Float(0.0, help="The forecast's stated error, as a share.").tag(sync=True)
    gpu_busy = t.Unicode(help="Such as `96 %, 1,414 kernels a step`; empty on a CPU.").tag(
        sync=True
    )
    strategy: t.List[Any] = t.List(help="How the plan runs it, in words.").tag(sync=True)
    loss_points = t.Bytes(help="float32 columns, see `Curves.loss_rows`.").tag(sync=True)
    rate_points = t.Bytes(help="float32 columns: step, learning rate.").tag(sync=True)
    gradient_points = t.Bytes(help="float32 columns: step, gradient norm.").tag(sync=True)
    speed_points = t.Bytes(help="float32 columns: step, tokens a second.").tag(sync=True)
    memory_points = t.Bytes(help="float32 columns: step, allocated, peak.").tag(sync=True)
    evaluation_points = t.Bytes(help="float32 columns: step, loss.").tag(sync=True)
    messages: t.List[Any] = t.List(help="What happened: kind, step, text, do.").tag(sync=True)
    samples: t.List[Any] = t.List(help="prompt, expected, answers of step and text.").tag(sync=True)

    window: t.List[Any] = t.List(help="First and last step looked at; empty for all.").tag(
        sync=True
    )
    smoothing = t.Float(0.9, help="Weight of the past in the smoothed loss.").tag(sync=True)
    log_loss = t.Bool(False, help="Whether the loss is drawn on a log scale.").tag(sync=True)
    hidden: t.List[Any] = t.List(help="Names of curves that are not drawn.").tag(sync=True)
    others: t.List[Any] = t.List(help="Runs that can be laid over: name, state, loss.").tag(
        sync=True
    )
    chosen: t.List[Any] = t.List(help="Names of the runs laid over, in order.").tag(sync=True)
    overlays: t.List[Any] = t.List(help="name and number of points of each.").tag(sync=True)
    overlay_points = t.Bytes(help="Columns like `loss_points`, one run after another.").tag(
        sync=True
    )
    differences: t.List[Any] = t.List(help="path, title and a value for each run.").tag(sync=True)

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
        traits.setdefault("colab", in_colab())
        self._follower: Any = None
        self._view: RunView | None = None
        self._plan_of: tuple[Any, ...] = ()
        self._overlaid = Overlays()
        self.at_rest: list[Callable[[], None]] = [self.keep]
        """Called when the run has come to rest, once everything of it is shown."""
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

    def do_pause(self) -> None:
        """The Pause button: rest after the step that runs now."""
        self.run.pause()
        self._say_state()

    def do_unpause(self) -> None:
        """The Continue button."""
        self.run.unpause()
        self._say_state()

    def do_save_now(self) -> None:
        """The Save now button: a checkpoint after the step that runs now."""
        self.run.save_now()
        self._say_state()

    def do_sample_now(self) -> None:
        """The Ask now button: answers after the step that runs now."""
        self.run.sample_now()
        self._say_state()

    def do_csv(self) -> None:
        """The CSV button: every step, also those that no plot shows, as a file for the page."""
        if self._view is not None:
            with self._guard:
                text = self._view.curves.csv()
            content = {"type": "csv", "name": f"{self.run_name}.csv"}
            self.send(content, buffers=[text.encode()])

    def do_list_runs(self) -> None:
        """The list of other runs was unfolded."""
        self.show(others=self._overlaid.available(self.studio.root, without=self.run))

    def do_overlay(self, names: list[str]) -> None:
        """Runs were chosen to be laid over this one."""
        shown = self._overlaid.choose(names, self.studio.root, self.run, self.recipe)
        self.show(**shown)

    def figure(self) -> Any:
        """Loss and memory of the run as a plotly figure that stays in the notebook."""
        view = self._view or RunView(self.run.log)
        view.read()
        return run_figure(
            view.curves,
            title=self.run_name,
            forecast=self.forecast_total,
            error=self.forecast_error,
            smoothing=self.smoothing,
        )

    def text_lines(self) -> list[str]:
        """State, losses, how it is run, answers and the last messages."""
        losses = ""
        if self.first_loss is not None and self.last_loss is not None:
            losses = f"loss {self.first_loss:.4f} → {self.last_loss:.4f}"
        busy = f"GPU busy {self.gpu_busy}" if self.gpu_busy else ""
        plan = f"plan: {', '.join(self.strategy)}" if self.strategy else ""
        asked = [
            f"  {item['prompt']!r} at step {answer['step']}: {answer['text']!r}"
            for item in self.samples
            for answer in item["answers"][:1]
        ]
        said = [f"  step {m['step']}: {m['text']} {m['do']}".rstrip() for m in self.messages[-5:]]
        return [self.summary, losses, busy, plan, self.run_path, *asked, *said]

    def html_body(self) -> str:
        """State, loss curve and the last messages, for a notebook without a kernel."""
        facts = {
            "Loss": f"{self.first_loss:.4f} → {self.last_loss:.4f}"
            if self.first_loss is not None and self.last_loss is not None
            else "",
            "Time in steps": duration_text(self.seconds) if self.seconds else "",
            "Device": self.device,
            "GPU busy": self.gpu_busy,
            "Plan": ", ".join(self.strategy),
            "Folder": self.run_path,
        }
        said = [f"step {m['step']}: {m['text']} {m['do']}".rstrip() for m in self.messages[-5:]]
        about = _static.paragraph(self.summary) + self._curve()
        return about + _static.facts(facts) + _static.items(said)

    def _curve(self) -> str:
        if self._view is None:
            return ""
        with self._guard:
            curves = self._view.curves
            rows, steps = curves.points("steps", "loss"), curves.steps
            smoothed = smooth(steps["loss"], self.smoothing)
            losses = [(steps["step"][at], steps["loss"][at], smoothed[at]) for at in rows]
            evaluated = zip(curves.evaluations["step"], curves.evaluations["loss"], strict=True)
            return loss_svg(losses, list(evaluated))

    def close(self) -> None:
        """Stop watching and take the view away; the run goes on."""
        self._follower = None
        super().close()

    def _run_changed(self, _change: object = None) -> None:
        run = self.run
        self.refresh_code()
        if run is None:
            return
        self._view = view = RunView(run.log)
        self.show(run_name=run.name, run_path=str(run.path), error={}, window=[])
        view.read()
        self._say_state(view.traits())
        self._follower = token = object()
        self.studio.thread(lambda: self._follow(run, view, token))

    def _follow(self, run: Any, view: RunView, token: object) -> None:
        """Show what is new in the log, five times a second at most, and less where that costs more."""
        while self._follower is token:
            began = time.thread_time()
            with self._guard:
                fresh = view.traits(self._looked_at()) if view.read() else {}
                if run is self.run:
                    self._say_state(fresh)
            shortest = SHORTEST if self.state in ACTIVE else IDLE
            time.sleep(max(shortest, (time.thread_time() - began) / SHARE))

    def _looked_at(self) -> tuple[float, float] | None:
        return (float(self.window[0]), float(self.window[1])) if len(self.window) == 2 else None

    @t.observe("window")
    def _window_changed(self, _change: object) -> None:
        with self._guard:
            if self._view is not None:
                self.show(**self._view.points(self._looked_at()))

    def _say_state(self, fresh: dict[str, Any] | None = None) -> None:
        """Show where the run stands, with what is new of its curves in the same message."""
        run = self.run
        state = "new" if run is None else run.state
        failure = getattr(run, "error", None)
        with self._guard, self.hold_sync():
            self.show(**(fresh or {}))
            shown = {
                "state": state,
                "phase": getattr(run, "phase", ""),
                "requests": sorted(getattr(run, "requests", ())) if state in ACTIVE else [],
                **self._about_plan(run, state),
            }
            if failure is not None:
                shown["error"] = failure.to_dict(traceback=True)
            before = self.state
            self.show(**shown, summary=self._one_line(state))
        if state != before and state not in MOVING:
            for keep in self.at_rest:
                keep()

    def _about_plan(self, run: Any, state: str) -> dict[str, Any]:
        """What the plan says, read again only where it may have changed."""
        known = (run, state, len(self.messages))
        if known == self._plan_of:
            return {}
        self._plan_of = known
        plan = None if run is None else run.plan
        if plan is None:
            return {"forecast_total": 0, "forecast_error": 0.0, "strategy": []}
        return {
            "forecast_total": int(plan.forecast.total),
            "forecast_error": plan.forecast_error,
            "strategy": strategy_words(plan.strategy),
        }

    def _one_line(self, state: str) -> str:
        if self.run is None:
            return "Not started"
        where = f"step {self.step} of {self.total}" if self.total else self.phase
        left = f"{duration_text(self.eta)} left" if self.eta and state == "running" else ""
        loss = f"loss {self.last_loss:.3f}" if self.last_loss is not None else ""
        return " · ".join(part for part in (state.capitalize(), where, loss, left) if part)


def watch(run: Any) -> TrainPanel:
    """Watch a run: a `Run`, or the folder of one, of this or another process, finished or not.

    Raises:
        RunMissing: the path is not a run folder.
    """
    if isinstance(run, str | Path):
        from tunebook.training import open_run

        run = open_run(run)
    return TrainPanel(run=run)
