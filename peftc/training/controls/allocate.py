"""Ranks that all sites share: a budget goes to the places with the best scores.

In: at each site a vector, and matrices with its axis.  Out: zeros in the vectors where
a place of the axis is not among the best of all sites.  The score of a place adds up,
over vector and matrices, the mean of (average importance * average uncertainty), where
importance is |w * gradient|; the budget falls with the cube of the time that is left.
Zeros come back to life by their gradient until the last phase, in which scores stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import NotInRun
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.training import ControlPlan, Place
    from peftc.training.control import State
    from peftc.training.run import Run


@dataclass(frozen=True)
class Budget:
    """How many places live after each step.

    `first` until step `start`, `last` in the final `end` of `steps` steps.
    """

    first: int
    last: int
    start: int
    end: int
    steps: int

    def at(self, step: int) -> int:
        """The budget at a step, counted from 1."""
        if step <= self.start:
            return self.first
        if self.final(step):
            return self.last
        done = (step - self.start) / (self.steps - self.end - self.start)
        return int(self.last + (self.first - self.last) * (1 - done) ** 3)

    def final(self, step: int) -> bool:
        """Whether a step lies in the last phase."""
        return step > self.steps - self.end


class Allocate(Control):
    """Averages scores after each backward, and zeroes after each step."""

    def __init__(self, plan: ControlPlan, run: Run) -> None:
        super().__init__(plan, run)
        self.means: dict[str, torch.Tensor] = {}
        """Of the importance of each element, by site and tensor; then uncertainty."""

    @property
    def budget(self) -> Budget:
        """The budget over the run.

        Raises:
            PeftcError: PEFT690, or PEFT695 if the phases do not fit the run.
        """
        total = self.run.steps(self)
        start, end = (self.steps(self.options[n]) for n in ("tinit", "tfinal"))
        if start + end >= total or min(start, end) < 0:
            problem = f"{start} steps before and {end} after leave none of {total}"
            raise fail(NotInRun(control=self.plan.control, problem=problem))
        vectors = [self.run.values.tensor(place) for place in self.places]
        first = sum(v.numel() for v in vectors)
        rows = sum(v.numel() // v.shape[-1] for v in vectors)
        return Budget(first, self.options["target"] * rows, start, end, total)

    @property
    def step(self) -> int:
        """The step under way, counted from 1."""
        return self.run.step + 1

    def before_forward(self) -> None:
        """Refuse phases that do not fit before the first step, not at its end."""
        _ = self.budget

    def after_backward(self) -> None:
        """Take the gradients of this step into the averages."""
        if self.budget.final(self.step):
            return
        for place in self.places:
            for index in range(len(place.operands)):
                self._average(place, index)

    def _average(self, place: Place, index: int) -> None:
        tensor = self.run.values.tensor(place, index)
        gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        importance = (tensor.detach().float() * gradient.float()).abs()
        mean, spread = self._means(place, index)
        mean.lerp_(importance, 1 - self.options["beta1"])
        spread.lerp_((importance - mean).abs(), 1 - self.options["beta2"])

    def _means(self, place: Place, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The averages of importance and uncertainty; zeros at first."""
        tensor = self.run.values.tensor(place, index)
        start = f"{place.site}/{place.operands[index]}"
        for name in (f"{start}/importance", f"{start}/uncertainty"):
            if name not in self.means:
                self.means[name] = torch.zeros_like(tensor, dtype=torch.float32)
            self.means[name] = self.means[name].to(tensor.device)
        return self.means[f"{start}/importance"], self.means[f"{start}/uncertainty"]

    def score(self, place: Place) -> torch.Tensor:
        """How much each place of the axis at a site is worth; shaped as its vector."""
        vector = self.run.values.tensor(place)
        axis = place.nodes[0].axes[0]
        total = torch.zeros_like(vector, dtype=torch.float32)
        for index, node in enumerate(place.nodes):
            mean, spread = self._means(place, index)
            value = mean * spread
            extra = value.dim() - len(node.axes)
            kept = {*range(extra), extra + node.axes.index(axis)}
            others = [d for d in range(value.dim()) if d not in kept]
            total += value.mean(others) if others else value
        return total

    def after_optimizer(self) -> None:
        """Zero what the budget has no room for, when it is time for that."""
        budget = self.budget
        due = self.step > budget.start and self.step % self.options["every"] == 0
        if due or budget.final(self.step):
            self.zero(budget.at(self.step))

    def zero(self, budget: int) -> None:
        """Keep the best places of all sites; of equal ones those that come first."""
        scores = torch.cat([self.score(place).flatten().cpu() for place in self.places])
        order = scores.argsort(descending=True, stable=True)
        lives = torch.zeros_like(scores, dtype=torch.bool)
        lives[order[:budget]] = True
        with torch.no_grad():
            for vector, alive in self._split(lives):
                vector.masked_fill_(~alive.to(vector.device), 0)

    def _split(
        self, lives: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        done = 0
        for place in self.places:
            vector = self.run.values.tensor(place)
            own = lives[done : done + vector.numel()]
            done += vector.numel()
            yield vector, own.view(vector.shape)

    def state(self) -> State:
        """The averages."""
        return dict(self.means)

    def load(self, state: State) -> None:
        """Go on with averages."""
        self.means = {name: value.clone() for name, value in state.items()}
