"""Settings: the classes that plugins extend.

The engine's own settings are in `engine.py`, the rules of layers in `layers.py`.
"""

from t2i.core.settings.base import MOST_LAYERS, Config
from t2i.core.settings.data import DataConfig
from t2i.core.settings.model import ModelConfig, Preset

__all__ = ["MOST_LAYERS", "Config", "DataConfig", "ModelConfig", "Preset"]
