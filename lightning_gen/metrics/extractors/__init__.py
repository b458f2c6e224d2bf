from lightning_gen.metrics.extractors.base import FeatureExtractor, Features, create_extractor, extractors

__all__ = ["FeatureExtractor", "Features", "create_extractor", "extractors"]
