"""Clusters of images: a method's own prototypes, or k-means over its embeddings."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tapetum.data.images.stores import Store
from tapetum.data.views.evaluation_views import evaluation_views, mean_over_views
from tapetum.evaluation.embedding import Embedder
from tapetum.evaluation.image_chunks import ImageChunk, Indices, in_batches
from tapetum.ops.kmeans import kmeans, spread_rows
from tapetum.ops.randomness import make_keys

ITERATIONS = 50
"""Number of k-means iterations; little changes after a few dozen."""
TEMPERATURE = 0.1
"""Temperature of the shares that k-means clusters have in an image, as in the methods' own predictions."""

Clustered = tuple[ImageChunk, Tensor]
"""A few images, and the shares (n, K) of the clusters in each image that could be read; rows sum to one."""


@torch.no_grad()
def by_prototypes(embedder: Embedder, store: Store, indices: Indices, batch_size: int) -> Iterator[Clustered]:
    """Yield images in order, some at a time, with the softmax over the method's first set of prototypes."""
    for chunk, images in embedder.stream_images(store, in_batches(indices, batch_size)):
        if images is None:
            yield chunk, torch.empty(0, 0)
            continue
        with embedder.compute.autocast():
            found = [embedder.method.cluster(view) for view in evaluation_views(images, embedder.views.evaluation)]
        logits = [view.float() for view in found if view is not None]
        assert logits, "the method has no prototypes"
        yield chunk, mean_over_views(logits).softmax(dim=1).cpu()


def by_kmeans(
    embedder: Embedder, store: Store, indices: Indices, batch_size: int, num_clusters: int, seed: int
) -> Iterator[Clustered]:
    """As `by_prototypes`, but with spherical k-means over the embeddings of all images, which are kept in memory.

    Raises:
        ValueError: fewer images can be read than clusters are requested.
    """
    chunks, parts = [], []
    for chunk, outputs in embedder.stream(store, indices, batch_size):
        chunks.append(chunk._replace(pixels=chunk.pixels[:0]))
        parts.append(normalize(outputs.embeddings, dim=1))
    rows = torch.cat([part for part in parts if len(part)] or [torch.empty(0, 1)])
    if len(rows) < num_clusters:
        raise ValueError(f"clusters is {num_clusters}, but {len(rows)} images can be read: use fewer clusters.")
    start = spread_rows(rows, num_clusters, make_keys(seed, "clusters"))
    centroids, _ = kmeans(rows, rows[start], ITERATIONS)
    for chunk, part in zip(chunks, parts, strict=True):
        yield chunk, (part @ centroids.T / TEMPERATURE).softmax(dim=1) if len(part) else part
