"""Eq. 4 for one record as it lies in the store, for commands that only look: numpy, so that nobody waits for torch.

In: the teacher's attention (L, S, K). Out: the share of each layer. Training computes the same in batches, in
stages/mixture.py; a test holds the two together.

Shapes: L layers, S reasoning steps, K critical words.
"""

import numpy as np
import numpy.typing as npt


def record_layer_weights(attention_LSK: npt.NDArray[np.floating], tau: float) -> npt.NDArray[np.float64]:
    """Layers in which attention varies most from word to word weigh most.

        G(A_l) = Σ_s Σ_{k<K} |A_l[s, k+1] − A_l[s, k]| / (S (K − 1)),   p = softmax(G / τ)        Eq. 4

    Eq. 4 after arXiv 2604.15701; returns (L,). Departure: for K = 1 G is undefined; the layers then weigh the same.
    """
    _, steps, words = attention_LSK.shape
    change = np.abs(np.diff(attention_LSK.astype(np.float64), axis=2)).sum(axis=(1, 2))
    scaled = change / max(1, steps * (words - 1)) / tau
    unnormalised = np.exp(scaled - scaled.max())
    weights: npt.NDArray[np.float64] = unnormalised / unnormalised.sum()
    return weights
