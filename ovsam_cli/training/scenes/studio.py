"""The Blender side: build a stage with bpy, answer probes with rays, render image and object ids.

Only this module imports bpy, inside its functions; it needs the `scenes` extra.
"""

import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ovsam_cli.errors import InputError
from ovsam_cli.training.scenes import materials
from ovsam_cli.training.scenes.layout import Camera, Placement, Stage

if TYPE_CHECKING:
    import bpy

BACKDROP_DISTANCE = 3.0  # meters behind the last object outdoors


def import_bpy() -> ModuleType:
    """The bpy module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import bpy
    except ImportError as error:
        raise InputError(
            "rendered scenes need Blender's bpy module: install ovsam-cli with the extra [scenes]"
        ) from error
    return bpy


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
        cycles.diffuse_bounces = 1
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
        for material in set(bpy.data.materials) - materials_before:
            _vary_material(material, self.rng)

    def probe(
        self, x: float, y: float, half_w: float, half_d: float, yaw: float, start: float,
        height: float,
    ) -> float | None:
        """Height of a flat, free spot under (x, y), or None; see `layout.Probe`."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        graph = self.bpy.context.evaluated_depsgraph_get()
        levels: list[float] = []
        for u, v in ((0, 0), (-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)):
            px, py = x + u * half_w * cos - v * half_d * sin, y + u * half_w * sin + v * half_d * cos
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

    def build_surroundings(self) -> None:
        """Floor, walls or facades, and light."""
        bounds, rng = self.stage.bounds, self.rng
        painters = materials.FLOORS if bounds.has_walls else materials.GROUNDS
        floor = self._surface(materials.paint(painters, rng), rng.uniform(0.25, 0.9))
        if not bounds.has_walls:
            self._plane(floor, (-150, -30, 0), (300, 0, 0), (0, 330, 0), rng.uniform(1.5, 4))
            self._build_backdrop(bounds.back + BACKDROP_DISTANCE)
            return
        left, right, back, high = bounds.left, bounds.right, bounds.back, bounds.height
        tile = float(rng.uniform(1.0, 2.5))
        if rng.uniform() < 0.5:
            self._plane(floor, (left, -3, 0), (right - left, 0, 0), (0, back + 3, 0), tile)
        else:
            self._plane(floor, (right, -3, 0), (0, back + 3, 0), (left - right, 0, 0), tile)
        wall = self._surface(materials.paint(materials.WALLS, rng), rng.uniform(0.4, 0.95))
        side = wall
        if rng.uniform() < 0.4:
            side = self._surface(materials.paint(materials.WALLS, rng), 0.8)
        self._plane(wall, (left, back, 0), (right - left, 0, 0), (0, 0, high), 2.0)
        self._plane(side, (left, -3, 0), (0, back + 3, 0), (0, 0, high), 2.0)
        self._plane(side, (right, back, 0), (0, -back - 3, 0), (0, 0, high), 2.0)
        white = self._surface(materials.plaster(rng) * 0.2 + 0.75, 0.9)
        ceiling = self._plane(
            white, (left, -3, high), (right - left, 0, 0), (0, back + 3, 0), 2.0
        )
        # The sky above lights the room; the ceiling is only there to be seen.
        ceiling.visible_diffuse = ceiling.visible_shadow = ceiling.visible_glossy = False

    def _build_backdrop(self, distance: float) -> None:
        rng = self.rng
        kind = rng.uniform()
        if kind < 0.55:
            position = -70.0
            fronts = [self._surface(materials.facade(rng), 0.7) for _ in range(3)]
            while position < 70:
                width, height = float(rng.uniform(8, 30)), float(rng.uniform(4, 16))
                material = fronts[int(rng.integers(3))]
                away = distance + float(rng.uniform(0, 2))
                self._plane(
                    material, (position, away, 0), (width, 0, 0), (0, 0, height), rng.uniform(5, 9)
                )
                position += width + float(rng.choice((0.0, 0.0, 3.0)))
        elif kind < 0.75:
            wall = self._surface(materials.paint(materials.FENCES, rng), 0.9)
            self._plane(
                wall, (-70, distance, 0), (140, 0, 0), (0, 0, float(rng.uniform(1.5, 6))), 2.5
            )

    def build_light(self) -> None:
        """Sun and sky outdoors; sky from above, lamps and a window's glow indoors."""
        bpy, rng, bounds = self.bpy, self.rng, self.stage.bounds
        world = bpy.data.worlds.new("world")
        self.scene.world = world
        world.use_nodes = True
        nodes, links = world.node_tree.nodes, world.node_tree.links
        picture = nodes.new("ShaderNodeTexEnvironment")
        picture.image = self._image(materials.sky(rng), is_linear=True)
        background = next(node for node in nodes if node.type == "BACKGROUND")
        links.new(picture.outputs["Color"], background.inputs["Color"])
        background.inputs["Strength"].default_value = float(
            rng.uniform(0.2, 0.9) if bounds.has_walls else rng.uniform(0.7, 1.3)
        )
        # Light from a picture of the sky costs half the render: the picture is only seen, and a sun
        # almost as wide as the sky gives its soft light.
        world.cycles.sampling_method = "NONE"
        world.cycles_visibility.diffuse = False
        dome = self._sun(float(rng.uniform(0.5, 2.5)), float(rng.uniform(0, 0.4)))
        dome.angle = 2.8
        dome.color = (float(rng.uniform(0.8, 1)), 0.95, float(rng.uniform(0.85, 1)))
        if not bounds.has_walls:
            if rng.uniform() < 0.75:
                self._sun(float(rng.uniform(1.5, 5)), float(rng.uniform(0.3, 1.25)))
            return
        middle = (bounds.left + bounds.right) / 2
        for _ in range(int(rng.integers(1, 4))):
            x = float(rng.uniform(bounds.left * 0.8, bounds.right * 0.8))
            y = float(rng.uniform(-0.5, bounds.back * 0.9))
            self._area((x, y, bounds.height - 0.1), (middle, y, 0), float(rng.uniform(20, 120)))
        if rng.uniform() < 0.6:
            side = bounds.left if rng.uniform() < 0.5 else bounds.right
            y = float(rng.uniform(0, bounds.back * 0.7))
            self._area((side * 0.98, y, 1.6), (0, y, 0.5), float(rng.uniform(50, 250)))
        if rng.uniform() < 0.3:
            self._sun(float(rng.uniform(1, 4)), float(rng.uniform(0.2, 0.8)))

    def _sun(self, strength: float, tilt: float) -> "bpy.types.SunLight":
        light = self.bpy.data.lights.new("sun", "SUN")
        light.energy = strength
        light.angle = float(self.rng.uniform(0.005, 0.08))
        light.color = (1.0, float(self.rng.uniform(0.82, 1)), float(self.rng.uniform(0.6, 0.95)))
        placed = self.bpy.data.objects.new("sun", light)
        placed.rotation_euler = (tilt, 0, float(self.rng.uniform(-math.pi, math.pi)))
        self.scene.collection.objects.link(placed)
        return light

    def _area(
        self, at: tuple[float, float, float], target: tuple[float, float, float], power: float
    ) -> None:
        light = self.bpy.data.lights.new("area", "AREA")
        light.size = float(self.rng.uniform(0.3, 1.6))
        light.energy = power
        light.color = (1.0, float(self.rng.uniform(0.75, 1)), float(self.rng.uniform(0.5, 1)))
        placed = self.bpy.data.objects.new("area", light)
        placed.location = at
        direction = np.subtract(target, at)
        placed.rotation_euler = (
            math.pi / 2 + math.atan2(direction[2], math.hypot(direction[0], direction[1])),
            0,
            math.atan2(direction[1], direction[0]) - math.pi / 2,
        )
        placed.visible_camera = False
        self.scene.collection.objects.link(placed)

    def _surface(self, albedo: materials.FloatArray, roughness: float) -> "bpy.types.Material":
        material = self.bpy.data.materials.new("surface")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        picture = nodes.new("ShaderNodeTexImage")
        picture.image = self._image(albedo, is_linear=False)
        shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
        links.new(picture.outputs["Color"], shader.inputs["Base Color"])
        shader.inputs["Roughness"].default_value = float(roughness)
        return material

    def _image(self, albedo: materials.FloatArray, *, is_linear: bool) -> "bpy.types.Image":
        height, width = albedo.shape[:2]
        image = self.bpy.data.images.new("picture", width, height, float_buffer=is_linear)
        opaque = np.concatenate([albedo, np.ones((height, width, 1), np.float32)], axis=2)
        image.pixels.foreach_set(np.ascontiguousarray(opaque, dtype=np.float32).ravel())
        return image

    def _plane(
        self, material: "bpy.types.Material", corner: tuple[float, float, float],
        first: tuple[float, float, float], second: tuple[float, float, float], tile: float,
    ) -> "bpy.types.Object":
        origin, one, two = np.array(corner), np.array(first), np.array(second)
        vertices = [origin, origin + one, origin + one + two, origin + two]
        mesh = self.bpy.data.meshes.new("plane")
        mesh.from_pydata([tuple(vertex) for vertex in vertices], [], [(0, 1, 2, 3)])
        u, v = np.linalg.norm(one) / tile, np.linalg.norm(two) / tile
        layer = mesh.uv_layers.new()
        layer.data.foreach_set("uv", np.array([0, 0, u, 0, u, v, 0, v], dtype=np.float32))
        mesh.materials.append(material)
        plane = self.bpy.data.objects.new("plane", mesh)
        self.scene.collection.objects.link(plane)
        return plane

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
