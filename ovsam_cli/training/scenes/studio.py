"""The Blender side: build a stage with bpy, answer probes with rays, render image and object ids.

Only this module imports bpy, inside its functions; no extra brings it (pyproject.toml says why).
"""

import io
import math
from contextlib import redirect_stderr
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.training.scenes import materials
from ovsam_cli.training.scenes.layout import Camera, Placement, Stage
from ovsam_cli.training.scenes.scenery import Scenery, make_matte

if TYPE_CHECKING:
    import bpy


def import_bpy() -> ModuleType:
    """The bpy module.

    Raises:
        InputError: it is not installed.
    """
    try:
        # A part of it is built for numpy 1 and says so at length; pictures do without that part.
        with redirect_stderr(io.StringIO()):
            blender = import_module("bpy")
    except ImportError as error:
        raise InputError(
            "rendered scenes need Blender's bpy module; with Python 3.11: "
            "pip install --no-deps 'bpy>=5.0.1,<6'"
        ) from error
    return blender


class Studio:
    """One Blender scene; make a new one for every picture."""

    def __init__(self, stage: Stage, picture_hw: tuple[int, int], samples: int) -> None:
        self.stage = stage
        self.rng = stage.rng
        self.bpy = import_bpy()
        self.bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene: bpy.types.Scene = self.bpy.context.scene
        self._built = 0
        self._set_up_render(picture_hw, samples)
        self._set_up_camera(stage.camera)

    def _set_up_render(self, picture_hw: tuple[int, int], samples: int) -> None:
        scene = self.scene
        scene.render.engine = "CYCLES"
        scene.render.resolution_y, scene.render.resolution_x = picture_hw
        scene.render.resolution_percentage = 100
        scene.render.threads_mode = "FIXED"
        scene.render.threads = 1
        scene.render.use_persistent_data = False
        cycles = scene.cycles
        cycles.device = "CPU"
        cycles.samples = samples
        cycles.use_adaptive_sampling = False
        cycles.use_denoising = True
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_input_passes = "RGB_ALBEDO"
        cycles.denoising_prefilter = "NONE"
        cycles.denoising_quality = "FAST"
        cycles.max_bounces = 2
        # One bounce colors the shadows, for a quarter of the time; most pictures go without.
        cycles.diffuse_bounces = int(self.rng.uniform() < 0.35)
        cycles.glossy_bounces = 1
        cycles.transmission_bounces = 2
        cycles.transparent_max_bounces = 6
        cycles.caustics_reflective = cycles.caustics_refractive = False
        cycles.sample_clamp_indirect = 5.0
        cycles.seed = int(self.rng.integers(2**30))
        layer = scene.view_layers[0]
        layer.use_pass_object_index = True
        layer.pass_alpha_threshold = 0.1
        settings = scene.render.image_settings
        if hasattr(settings, "media_type"):
            settings.media_type = "MULTI_LAYER_IMAGE"
        settings.file_format = "OPEN_EXR_MULTILAYER"
        settings.color_depth = "32"
        settings.exr_codec = "NONE"

    def _set_up_camera(self, camera: Camera) -> None:
        data = self.bpy.data.cameras.new("camera")
        data.sensor_fit = "HORIZONTAL"
        data.angle = camera.horizontal_fov
        data.clip_end = 300
        placed = self.bpy.data.objects.new("camera", data)
        placed.location = (0, 0, camera.height)
        placed.rotation_euler = (math.pi / 2 + camera.pitch, camera.roll, 0)
        self.scene.collection.objects.link(placed)
        self.scene.camera = placed

    def build_placements(self) -> None:
        """Import the models of the placements that are not built yet; ids count from 1."""
        for number in range(self._built, len(self.stage.placements)):
            self._build_model(self.stage.placements[number], number + 1)
        self._built = len(self.stage.placements)
        self.bpy.context.view_layer.update()

    def _build_model(self, placement: Placement, object_id: int) -> None:
        bpy = self.bpy
        materials_before = set(bpy.data.materials)
        objects_before = set(bpy.data.objects)
        # validate_meshes would delete faces; splitting would scatter one model over many objects.
        bpy.ops.wm.obj_import(
            filepath=str(placement.model.obj_path),
            forward_axis="Y",
            up_axis="Z",
            use_split_objects=False,
            use_split_groups=False,
            validate_meshes=False,
        )
        for imported in set(bpy.data.objects) - objects_before:
            imported.pass_index = object_id
            _fit_mesh(imported.data, placement)
            imported.location = (placement.x, placement.y, placement.z)
            imported.rotation_euler = (0, 0, placement.yaw)
        # A set of Blender's things has no fixed order, and the order of draws must be fixed.
        fresh = set(bpy.data.materials) - materials_before
        for material in sorted(fresh, key=lambda material: material.name):
            _vary_material(material, self.rng)

    def probe(
        self,
        x: float,
        y: float,
        half_w: float,
        half_d: float,
        yaw: float,
        start: float,
        height: float,
    ) -> float | None:
        """Height of a flat, free spot under (x, y), or None; see `layout.Probe`."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        graph = self.bpy.context.evaluated_depsgraph_get()
        levels: list[float] = []
        for across, along in ((0, 0), (-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)):
            u, v = across * half_w, along * half_d
            px, py = x + u * cos - v * sin, y + u * sin + v * cos
            hit, point, *_ = self.scene.ray_cast(graph, (px, py, start), (0, 0, -1))
            if not hit:
                return None
            levels.append(point[2])
            if max(levels) - min(levels) > 0.012:
                return None
            above = (px, py, point[2] + 0.003)
            if self.scene.ray_cast(graph, above, (0, 0, 1), distance=height)[0]:
                return None
        return max(levels) + 0.001

    def build_scenery(self) -> None:
        """Floor, walls or facades, and light."""
        scenery = Scenery(self.bpy, self.stage.bounds, self.rng)
        scenery.build_surroundings()
        scenery.build_light()

    def render(self, path: Path) -> None:
        """Render to an uncompressed multi-part EXR file at `path`."""
        self.scene.render.filepath = str(path)
        self.bpy.ops.render.render(write_still=True)


def _fit_mesh(mesh: "bpy.types.Mesh", placement: Placement) -> None:
    """Rotate a y-up mesh as its catalog says, turn it z up, and scale its box to the placement."""
    points = np.empty(len(mesh.vertices) * 3, dtype=np.float32)
    mesh.vertices.foreach_get("co", points)
    points = points.reshape(-1, 3) @ np.array(placement.model.rotation, np.float32).reshape(3, 3).T
    points = np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2) / np.maximum(high - low, 1e-6) * placement.size
    points[:, 2] += placement.size[2] / 2
    mesh.vertices.foreach_set("co", np.ascontiguousarray(points, dtype=np.float32).ravel())
    mesh.update()


def _vary_material(material: "bpy.types.Material", rng: np.random.Generator) -> None:
    """Shift the color of one imported material; give plain ones some texture."""
    if material.node_tree is None:
        return
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)
    if shader is None:
        return
    base = shader.inputs["Base Color"]
    for link in [link for socket in shader.inputs for link in socket.links]:
        picture = getattr(link.from_node, "image", None)
        if link.from_node.type == "TEX_IMAGE" and (picture is None or picture.size[0] == 0):
            # A texture that cannot be read would be loud pink.
            links.remove(link)
            base.default_value = (*materials.random_color(rng, (0, 1), (0, 0.6), (0.2, 0.8)), 1)
    is_plain = not base.is_linked
    shift = nodes.new("ShaderNodeHueSaturation")
    strong = is_plain and rng.uniform() < 0.4
    shift.inputs["Hue"].default_value = 0.5 + float(rng.normal(0, 0.2 if strong else 0.02))
    shift.inputs["Saturation"].default_value = float(rng.uniform(0.7, 1.2))
    shift.inputs["Value"].default_value = float(rng.uniform(0.75, 1.15))
    if is_plain:
        color = np.clip(np.array(base.default_value[:3]), 0.02, 0.92)
        noise = nodes.new("ShaderNodeTexNoise")
        noise.inputs["Scale"].default_value = float(np.exp(rng.uniform(1, 5)))
        noise.inputs["Detail"].default_value = 3.0
        ramp = nodes.new("ShaderNodeValToRGB")
        spread = float(rng.uniform(0.0, 0.35))
        ramp.color_ramp.elements[0].color = (*(color * (1 - spread)), 1)
        ramp.color_ramp.elements[1].color = (*np.minimum(color * (1 + spread), 0.95), 1)
        links.new(noise.outputs[0], ramp.inputs[0])
        links.new(ramp.outputs["Color"], shift.inputs["Color"])
    else:
        links.new(base.links[0].from_socket, shift.inputs["Color"])
    links.new(shift.outputs["Color"], base)
    shader.inputs["Roughness"].default_value = float(rng.uniform(0.2, 0.8))
    alpha = shader.inputs["Alpha"]
    if rng.uniform() < 0.6 and not alpha.is_linked and alpha.default_value == 1.0:
        make_matte(material, shift.outputs["Color"])
