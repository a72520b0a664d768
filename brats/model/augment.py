"""placeholder"""

import numpy as np, torch


def draw(slices, *, seed, epoch, n_channels, kind, occurrences=None):
    out = []
    for (c, r), o in zip(slices, occurrences or [0] * len(slices)):
        g = np.random.default_rng([seed, epoch, sum(map(ord, c)), r, o])
        out.append(g.random(2) < 0.5)
    return np.array(out, np.float32).reshape(-1, 2)


def augment(images, labels, parameters, noise, kind):
    if kind == "none":
        return images, labels
    h = parameters[:, 0] > 0
    w = parameters[:, 1] > 0
    images = torch.where(h[:, None, None, None], images.flip(-2), images)
    images = torch.where(w[:, None, None, None], images.flip(-1), images)
    labels = torch.where(h[:, None, None], labels.flip(-2), labels)
    labels = torch.where(w[:, None, None], labels.flip(-1), labels)
    return images, labels


def noise_table(seed, device):
    return torch.zeros(1, device=device)
