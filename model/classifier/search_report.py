"""The page of a search: one HTML file with Optuna's plots, every trial and the command that trains with the best."""

import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
from markupsafe import Markup
from optuna import visualization
from optuna.trial import TrialState

from classifier.archive import write_atomically
from classifier.study import best_trial, outcome
from classifier.template import environment

LOSS = "validation loss"
CHART_PIXELS = 400


def write_search_report(path: Path, study: optuna.Study, command: str) -> None:
    """Write the page about all trials of a study so far; command: what trains with the best of them.

    About 5 MB, of which plotly's script is all but a little: the page needs no network. Raises OSError.
    """
    trials = study.get_trials(deepcopy=False)
    outcomes = [outcome(trial) for trial in trials]
    page = (
        environment()
        .get_template("search_report.html")
        .render(
            study=study,
            trials=list(zip(trials, outcomes, strict=True)),
            counts={name: outcomes.count(name) for name in dict.fromkeys(outcomes)},
            parameters=list(dict.fromkeys(name for trial in trials for name in trial.params)),
            best=best_trial(study),
            command=command,
            charts=charts(study),
        )
    )
    write_atomically(path, page.encode())


def charts(study: optuna.Study) -> dict[str, Markup | str]:
    """Optuna's plots by title, as HTML; a word where the trials so far are too few or too alike for one."""
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    result, script = {}, "inline"
    for title, draw in _plots().items():
        if len(complete) < 2:
            result[title] = f"Drawn from the second complete trial on; there is {len(complete) or 'none'} so far."
            continue
        try:
            # Where trials are too few or equal, Optuna warns and draws all parameters as equally important.
            with warnings.catch_warnings(action="error", category=UserWarning):
                figure = draw(study)
        except (RuntimeError, ValueError, UserWarning) as error:
            result[title] = f"The trials so far are too few or too alike: {' '.join(str(error).split())}"
            continue
        figure.update_layout(template="plotly_white", title=None, margin={"t": 50, "b": 60})
        settings = {"displaylogo": False, "responsive": True}
        size = {"default_height": f"{CHART_PIXELS}px"}
        html = figure.to_html(config=settings, full_html=False, include_plotlyjs=script, **size)
        result[title], script = Markup(html), False
    return result


def _plots() -> dict[str, Callable[[optuna.Study], object]]:
    def losses(study: optuna.Study):
        figure = visualization.plot_intermediate_values(study)
        return figure.update_layout(xaxis_title="epoch", yaxis_title=LOSS, showlegend=False)

    return {
        "The best so far, trial by trial": lambda study: visualization.plot_optimization_history(
            study, target_name=LOSS
        ),
        "What mattered": lambda study: visualization.plot_param_importances(study, target_name=LOSS),
        "Choices and where they led": lambda study: visualization.plot_parallel_coordinate(study, target_name=LOSS),
        "Each choice alone": lambda study: visualization.plot_slice(study, target_name=LOSS),
        "Epochs": losses,
        "When each trial ran": visualization.plot_timeline,
    }
