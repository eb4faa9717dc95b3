"""Detectors: Ultralytics' YOLO and RT-DETR from their YAML files,
torchvision's (which keep boxes by their scores)."""

from __future__ import annotations

from typing import Any

import torch

from library_models.registry import Built, entry, family

YOLO = """yolov3-tiny yolov5n yolov5n-p6 yolov6n yolov8n yolov8n-seg yolov8n-pose yolov8n-obb yolov8n-cls yolov8n-p2
yolov8n-ghost yolov9t yolov9s yolov9c-seg yolov10n yolo11n yolo11n-seg yolo11n-pose yolo11n-obb yolo11n-cls yolo12n
yolo12n-seg yolo26n yolo26n-seg yolo26n-pose yolo26n-sem yolo26n-depth""".split()


@family("ultralytics", YOLO)
def yolo(name: str) -> Built:
    from ultralytics.nn import tasks

    kinds = {
        "seg": "SegmentationModel",
        "pose": "PoseModel",
        "obb": "OBBModel",
        "cls": "ClassificationModel",
        "sem": "SemanticSegmentationModel" if hasattr(tasks, "SemanticSegmentationModel") else "SemanticModel",
        "depth": "DepthModel",
    }
    kind = kinds.get(name.rpartition("-")[2], "DetectionModel")
    model = getattr(tasks, kind)(f"{name}.yaml", verbose=False)
    size = 224 if kind == "ClassificationModel" else 640
    return model.eval(), torch.zeros(1, 3, size, size)


@family("ultralytics", ["rtdetr-l", "rtdetr-resnet50"])
def rtdetr(name: str) -> Built:
    from ultralytics.nn.tasks import RTDETRDetectionModel

    return RTDETRDetectionModel(f"{name}.yaml", verbose=False).eval(), torch.zeros(1, 3, 640, 640)


@family("ultralytics", ["yolov8s-world", "yolov8s-worldv2"])
def yolo_world(name: str) -> Built:
    from ultralytics.nn.tasks import WorldModel

    return WorldModel(f"{name}.yaml", verbose=False).eval(), torch.zeros(1, 3, 640, 640)


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


DETECTORS = """fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2 fasterrcnn_mobilenet_v3_large_320_fpn
maskrcnn_resnet50_fpn keypointrcnn_resnet50_fpn retinanet_resnet50_fpn fcos_resnet50_fpn ssd300_vgg16
ssdlite320_mobilenet_v3_large""".split()


@family("torchvision", DETECTORS, executed=True)
def detector(name: str) -> Built:
    from torchvision.models import detection

    sizes: dict[str, Any] = {} if name.startswith("ssd") else {"min_size": 320, "max_size": 320}
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, **sizes)
    return model.eval(), [picture(240, 320)]


@entry("facenet-pytorch", "mtcnn_pnet")
def pnet() -> Built:
    from facenet_pytorch.models.mtcnn import PNet

    return PNet(pretrained=False).eval(), torch.zeros(1, 3, 240, 320)


@entry("kornia", "yunet")
def yunet() -> Built:
    from kornia.contrib.face_detection import YuNet

    return YuNet("test", pretrained=False).eval(), torch.zeros(1, 3, 320, 320)


@entry("kornia", "rt_detr_resnet18d")
def kornia_rtdetr() -> Built:
    from kornia.models.rt_detr.model import RTDETR, RTDETRConfig

    return RTDETR.from_config(RTDETRConfig("resnet18d", 80)).eval(), torch.zeros(1, 3, 320, 320)


@entry("transformers", "detr_resnet50")
def detr() -> Built:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(depths=[1, 1, 1, 1], out_features=["stage4"])
    config = DetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=backbone, encoder_layers=2, decoder_layers=2
    )
    return DetrForObjectDetection(config).eval(), {"pixel_values": torch.zeros(1, 3, 256, 256)}


@entry("transformers", "yolos_tiny")
def yolos() -> Built:
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(
        hidden_size=192, num_hidden_layers=2, num_attention_heads=3, intermediate_size=768, image_size=[224, 320]
    )
    return YolosForObjectDetection(config).eval(), {"pixel_values": torch.zeros(1, 3, 224, 320)}
