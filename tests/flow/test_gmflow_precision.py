"""GMFlow with bfloat16 features against float32, on a real frame moved by a known shift.

GMFlow's trained weights are not in the repository. These weights match without training: random convolutions describe
the pixels, the transformer adds little, and the flow spreads between positions that look alike.
"""

import pytest
import torch
import torch.nn.functional as F

from keep.data.frames import to_float
from keep.data.video_io import read_video
from keep.flow.gmflow import GMFlow


@torch.no_grad()
def matcher() -> GMFlow:
    torch.manual_seed(0)
    net = GMFlow(random_weights=True).eval()
    for name, parameter in net.named_parameters():
        if ".norm" in name and name.endswith("weight"):
            parameter.fill_(0.3)
    net.get_parameter("backbone.conv2.weight").mul_(8)
    net.get_parameter("backbone.conv2.bias").zero_()
    for projection in (net.feature_flow_attn.q_proj, net.feature_flow_attn.k_proj):
        projection.weight.copy_(torch.eye(128))
        projection.bias.zero_()
    net.get_parameter("upsampler.2.weight").mul_(0.1)
    return net


@pytest.mark.parametrize("clip", ["LivePortrait__d0.mp4", "LivePortrait__d9.mp4"])
def test_bfloat16_features_find_the_same_motion(shared, clip):
    video = read_video(shared(f"dev_video/{clip}"), 0, 1)
    frame = F.interpolate(to_float(torch.from_numpy(video).permute(0, 3, 1, 2)), (320, 320), mode="area")
    current, previous = frame[..., 32:288, 32:288], frame[..., 24:280, 40:296]
    shift = torch.tensor([-8.0, 8.0]).view(1, 2, 1, 1)
    net = matcher()
    exact = net(current, previous)
    net.features_in(torch.bfloat16)
    reduced = net(current, previous)
    assert reduced.dtype == torch.float32

    def error(flow: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (flow - other).norm(dim=1)[..., 32:-32, 32:-32]

    right = error(exact, shift) < 1  # the others lie in areas without texture
    distance = error(reduced, exact)[right]
    kept = (error(reduced, shift) < 1).float().mean() / right.float().mean()
    print(f"{right.float().mean():.1%} right; there {distance.median():.4f} px, mean {distance.mean():.3f}; {kept:.2f}")
    assert right.float().mean() > 0.6
    assert kept > 0.95
    assert distance.median() < 0.01
    assert distance.mean() < 0.2
