"""What surrounds the models in Blender: floor, walls or facades, sky and lamps."""

import math
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ovsam_cli.training.scenes import materials
from ovsam_cli.training.scenes.layout import Bounds

if TYPE_CHECKING:
    import bpy

BACKDROP_DISTANCE = 3.0  # meters behind the last object outdoors


class Scenery:
    """Adds planes and lights to the current Blender scene.

    Args:
        blender: the bpy module.
        bounds: walls of the room, or how far the plain reaches.
        rng: decides materials and light.
    """

    def __init__(self, blender: ModuleType, bounds: Bounds, rng: np.random.Generator) -> None:
        self.bpy = blender
        self.bounds = bounds
        self.rng = rng

    def build_surroundings(self) -> None:
        """Floor, and walls or facades."""
        bounds, rng = self.bounds, self.rng
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
        ceiling = self._plane(white, (left, -3, high), (right - left, 0, 0), (0, back + 3, 0), 2.0)
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
        bpy, rng, bounds = self.bpy, self.rng, self.bounds
        world = bpy.data.worlds.new("world")
        self.bpy.context.scene.world = world
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
        self.bpy.context.scene.collection.objects.link(placed)
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
        self.bpy.context.scene.collection.objects.link(placed)

    def _surface(self, albedo: materials.FloatArray, roughness: float) -> "bpy.types.Material":
        material = self.bpy.data.materials.new("surface")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        picture = nodes.new("ShaderNodeTexImage")
        picture.image = self._image(albedo, is_linear=False)
        shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
        links.new(picture.outputs["Color"], shader.inputs["Base Color"])
        shader.inputs["Roughness"].default_value = float(roughness)
        if roughness > 0.5:
            make_matte(material, picture.outputs["Color"])
        return material

    def _image(self, albedo: materials.FloatArray, *, is_linear: bool) -> "bpy.types.Image":
        height, width = albedo.shape[:2]
        image = self.bpy.data.images.new("picture", width, height, float_buffer=is_linear)
        opaque = np.concatenate([albedo, np.ones((height, width, 1), np.float32)], axis=2)
        image.pixels.foreach_set(np.ascontiguousarray(opaque, dtype=np.float32).ravel())
        return image

    def _plane(
        self,
        material: "bpy.types.Material",
        corner: tuple[float, float, float],
        first: tuple[float, float, float],
        second: tuple[float, float, float],
        tile: float,
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
        self.bpy.context.scene.collection.objects.link(plane)
        return plane


def make_matte(material: "bpy.types.Material", color: "bpy.types.NodeSocket") -> None:
    """Let a plain diffuse shader take the place of the general one, which costs far more."""
    nodes, links = material.node_tree.nodes, material.node_tree.links
    matte = nodes.new("ShaderNodeBsdfDiffuse")
    output = next(node for node in nodes if node.type == "OUTPUT_MATERIAL")
    links.new(color, matte.inputs["Color"])
    links.new(matte.outputs["BSDF"], output.inputs["Surface"])
