"""What a position of a feature map sees of the input: by closed form, and for every node of a traced graph.

After Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019
(https://distill.pub/2019/computing-receptive-fields).
"""

from __future__ import annotations

from costmodel.receptive_field.field import Field
from costmodel.receptive_field.walk import map_sizes, receptive_fields

__all__ = ["Field", "map_sizes", "receptive_fields"]
