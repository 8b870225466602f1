"""What training minimises: cross-entropy per task, and what may be added to it or change its weights.

The plain loss is the mean over rows of binary cross-entropy, summed over tasks with the schema's weights.

Legend: N rows of a batch, T tasks, K tasks of a funnel, D inputs of a head, P pairs, G groups.
"""

from __future__ import annotations

from itertools import pairwise as neighbours

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankd_training.errors import SettingError
from rankd_training.examples.batches import Batches
from rankd_training.examples.examples import Examples
from rankd_training.settings import TrainSettings

__all__ = ["Loss", "click_weights", "funnel_penalty", "listwise", "pairwise"]


class Loss:
    """The loss of a run. Raises SettingError where the settings do not fit the tasks or the model.

    Args:
        settings: which parts, and how much of each.
        examples: their tasks, and labels that a funnel is checked against.
        model: a funnel needs the weights of its head.
    """

    def __init__(self, settings: TrainSettings, examples: Examples, model: nn.Module) -> None:
        self._settings = settings
        self._weight_T = torch.tensor([task.weight for task in examples.schema.tasks])
        self._funnel = _funnel(settings, examples, model)

    def __call__(self, logit_NT: Tensor, label_NT: Tensor, group_N: Tensor, epoch: int) -> Tensor:
        """Logits, 0/1 labels and whose row each is -> one number. Epochs count from 1."""
        told = self._settings
        loss_NT = functional.binary_cross_entropy_with_logits(logit_NT, label_NT, reduction="none")
        if told.denoise_from is not None and epoch >= told.denoise_from:
            loss_NT = loss_NT * click_weights(loss_NT, label_NT, group_N, told.denoise_temperature)
        loss_T = loss_NT.mean(0)
        if told.ranking_loss != "none":
            rank = pairwise if told.ranking_loss == "pairwise" else listwise
            pairs = zip(logit_NT.unbind(1), label_NT.unbind(1), strict=True)
            ranked_T = torch.stack([rank(logit_N, label_N, group_N) for logit_N, label_N in pairs])
            loss_T = loss_T + told.ranking_weight * ranked_T
        loss = (loss_T * self._weight_T).sum()
        if self._funnel is not None:
            head, tasks = self._funnel
            loss = loss + told.funnel_penalty * funnel_penalty(head.weight[tasks])
        return loss


def pairwise(logit_N: Tensor, label_N: Tensor, group_N: Tensor) -> Tensor:
    """Mean of softplus(b - a) over all pairs (a, b) of a positive and a negative of one group; 0 without any.

    Binary cross-entropy on "a above b" (Burges et al., 2005, equation 3, with certain targets).
    """
    group_N = torch.unique(group_N, return_inverse=True)[1]  # codes of groups may be any 64 bits
    order_N = torch.argsort(group_N * 2 + label_N.long(), stable=True)  # in a group, negatives come first
    logit_N, positive_N = logit_N[order_N], label_N[order_N] > 0
    _, code_N, size_G = torch.unique_consecutive(group_N[order_N], return_inverse=True, return_counts=True)
    negatives_G = torch.zeros_like(size_G).index_add_(0, code_N, (~positive_N).long())
    start_G = size_G.cumsum(0) - size_G
    positive_at = positive_N.nonzero().squeeze(1)
    pairs_of = negatives_G[code_N[positive_at]]  # how many pairs each positive is in
    upper_P = torch.repeat_interleave(positive_at, pairs_of)
    first_P = torch.repeat_interleave(pairs_of.cumsum(0) - pairs_of, pairs_of)
    lower_P = start_G[code_N[upper_P]] + torch.arange(len(upper_P)) - first_P
    loss_P = functional.softplus(logit_N[lower_P] - logit_N[upper_P])
    mean: Tensor = loss_P.sum() / max(1, len(loss_P))
    return mean


def listwise(logit_N: Tensor, label_N: Tensor, group_N: Tensor) -> Tensor:
    """Mean over positives of -log softmax of their logit among their group's rows; 0 without any.

    ListNet's top-one loss (Cao et al., 2007, section 4) with a group's positives equally likely on top.
    Groups of one class say nothing of order and are left out.
    """
    _, code_N, size_G = torch.unique(group_N, return_inverse=True, return_counts=True)
    positives_G = torch.zeros(len(size_G)).index_add_(0, code_N, label_N)
    both_N = ((positives_G > 0) & (positives_G < size_G))[code_N]
    counted_N = label_N * both_N
    log_share_N = _log_softmax(logit_N, code_N, len(size_G))
    mean: Tensor = -(log_share_N * counted_N).sum() / counted_N.sum().clamp(min=1.0)
    return mean


@torch.no_grad()
def click_weights(loss_NT: Tensor, label_NT: Tensor, group_N: Tensor, temperature: float) -> Tensor:
    """Weights [N, T] that trust a user's likely clicks more than unlikely ones; negatives keep weight 1.

    PLD (models.md 7.3) draws one of a user's positives with probability softmax(-loss / temperature). This is
    its expectation, pointwise: each positive counts by that softmax over the batch's positives of its group,
    times their number, so that a group's clicks keep their total.
    """
    _, code_N, size_G = torch.unique(group_N, return_inverse=True, return_counts=True)
    weights = []
    for loss_N, label_N in zip(loss_NT.unbind(1), label_NT.unbind(1), strict=True):
        clicked_N = label_N > 0
        score_N = torch.where(clicked_N, -loss_N / temperature, -torch.inf)
        clicks_G = torch.zeros(len(size_G)).index_add_(0, code_N, label_N)
        share_N = torch.exp(_log_softmax(score_N, code_N, len(size_G)))
        weights.append(torch.where(clicked_N, share_N * clicks_G[code_N], 1.0))
    return torch.stack(weights, dim=1)


def funnel_penalty(weight_KD: Tensor) -> Tensor:
    """PRESTO's sum_j |b_1j| + sum_k>1 |b_kj - b_(k-1)j| (models.md 7.4) over the heads of a funnel.

    Labels "at least step k", one a task, make cross-entropy the model of cumulative logits: a penalty of 0
    leaves separate regressions, a large one a single slope with one intercept a step (proportional odds).
    """
    return weight_KD[0].abs().sum() + weight_KD.diff(dim=0).abs().sum()


def _log_softmax(logit_N: Tensor, code_N: Tensor, num_groups: int) -> Tensor:
    """Log softmax within groups; -inf stays -inf."""
    highest_G = torch.full((num_groups,), -torch.inf).scatter_reduce_(0, code_N, logit_N.detach(), "amax")
    moved_N = logit_N - highest_G.nan_to_num(neginf=0.0)[code_N]
    sum_G = torch.zeros(num_groups).index_add_(0, code_N, torch.exp(moved_N))
    return moved_N - torch.log(sum_G)[code_N]


def _funnel(
    settings: TrainSettings, examples: Examples, model: nn.Module
) -> tuple[nn.Linear, list[int]] | None:
    if not settings.funnel or settings.funnel_penalty == 0:
        return None
    names = [task.name for task in examples.schema.tasks]
    unknown = [name for name in settings.funnel if name not in names]
    if unknown or len(set(settings.funnel)) < max(2, len(settings.funnel)):
        raise SettingError(
            f"funnel {list(settings.funnel)}: expected two or more different tasks of {', '.join(names)}, "
            "from the most frequent to the rarest"
        )
    tasks = [names.index(name) for name in settings.funnel]
    for before, after in neighbours(tasks):
        skipped_n = examples.label_nT[:, after] > examples.label_nT[:, before]
        if skipped_n.any():
            raise SettingError(
                f"funnel: row {int(skipped_n.argmax())} of the examples has {names[after]} without "
                f"{names[before]}; a step of a funnel implies the one before"
            )
    return _head(model, Batches(examples)), tasks


def _head(model: nn.Module, batches: Batches) -> nn.Linear:
    """The Linear whose output is the logits of all tasks.

    Logits that are a sum of more (DeepFM, ARM-Net+) have slopes that no penalty of one layer would see.
    """
    few = batches.read(torch.from_numpy(batches.examples.rows["train"][:2]))
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if layers:
        heard: list[Tensor] = []
        hook = layers[-1].register_forward_hook(lambda _, __, out: heard.append(out))
        trains = model.training
        with torch.no_grad():
            logit_NT = model.eval()(few.features)
        hook.remove()
        model.train(trains)
        if heard and torch.equal(heard[-1], logit_NT):
            return layers[-1]
    raise SettingError("funnel: this model has no head that its tasks share alone; try mlcc, dcnv2 or dnn")
