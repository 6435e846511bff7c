from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="spacy_ie_moe",
    version="0.1.0",
    description="Relation extraction for spaCy: zero-shot between given entities, or trained together with them",
    long_description=(HERE / "README.md").read_text(encoding="utf8"),
    long_description_content_type="text/markdown",
    author="The spacy_ie_moe authors",
    license="Apache-2.0",
    keywords="spacy relation-extraction zero-shot information-extraction nlp",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["spacy_ie_moe", "spacy_ie_moe.*"]),
    include_package_data=True,
    package_data={
        "spacy_ie_moe": ["py.typed"],
        "spacy_ie_moe.models": ["**/*"],
    },
    install_requires=[
        "spacy>=3.8.13,<3.9",
        "thinc>=8.3.12,<8.4",
        "torch>=2.4",
        "transformers>=4.50,<4.53.3",
        "tokenizers>=0.21",
        "peft>=0.21",
        "huggingface_hub>=0.24",
        "safetensors>=0.4.3",
        "srsly>=2.4",
        "numpy>=1.26",
        "typer>=0.12",
        "tqdm>=4.66",
    ],
    extras_require={
        "transformer": ["spacy-transformers>=1.4,<1.5"],
        "cuda12x": ["cupy-cuda12x>=13"],
        "cuda13x": ["cupy-cuda13x>=13.6"],
        "report": ["matplotlib>=3.7"],
        "constrained": ["llguidance>=1.2"],
        "quantised": ["bitsandbytes>=0.46"],
        "train": ["accelerate>=1.0"],
        "deberta": ["sentencepiece>=0.2", "protobuf>=4"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "matplotlib>=3.7",
            "spacy-transformers>=1.4,<1.5",
            "llguidance>=1.2",
            "accelerate>=1.0",
        ],
        "dev": ["pytest>=8", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.11"],
    },
    entry_points={
        "console_scripts": ["spacy-ie-moe = spacy_ie_moe.cli:main"],
        "spacy_factories": [
            "document_relations = spacy_ie_moe.documents.component:make_document_relations",
            "glirel = spacy_ie_moe.glirel.component:make_glirel",
            "gmoe_rte = spacy_ie_moe.gmoe_rte.component:make_gmoe_rte",
            "uc_uie = spacy_ie_moe.uc_uie.component:make_uc_uie",
        ],
        "spacy_architectures": [
            "spacy_ie_moe.GLiREL.v1 = spacy_ie_moe.glirel.architecture:build_glirel",
            "spacy_ie_moe.GMoERTE.v1 = spacy_ie_moe.gmoe_rte.architecture:build_gmoe_rte",
            "spacy_ie_moe.UCUIE.v1 = spacy_ie_moe.uc_uie.architecture:build_uc_uie",
            "spacy_ie_moe.SentenceEncoder.v1 = spacy_ie_moe.gmoe_rte.encoders:build_sentence_encoder",
            "spacy_ie_moe.Tok2VecSentences.v1 = spacy_ie_moe.gmoe_rte.encoders:build_tok2vec_sentences",
            "spacy_ie_moe.TransformerSentences.v1 = spacy_ie_moe.gmoe_rte.encoders:build_transformer_sentences",
        ],
        "spacy_readers": [
            "spacy_ie_moe.RelationCorpus.v1 = spacy_ie_moe.corpora.reader:create_relation_corpus",
        ],
        "spacy_scorers": [
            "spacy_ie_moe.relation_scorer.v1 = spacy_ie_moe.scoring:make_relation_scorer",
            "spacy_ie_moe.document_relation_scorer.v1 = spacy_ie_moe.document_scoring:make_document_relation_scorer",
            "spacy_ie_moe.string_triple_scorer.v1 = spacy_ie_moe.string_triples:make_string_triple_scorer",
            "spacy_ie_moe.frame_scorer.v1 = spacy_ie_moe.uie_scoring:make_frame_scorer",
            "spacy_ie_moe.triplet_scorer.v1 = spacy_ie_moe.triplet_scoring:make_triplet_scorer",
        ],
        "thinc_schedules": [
            "spacy_ie_moe.warmup_cosine.v1 = spacy_ie_moe.torch_wrapper:warmup_cosine",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
    ],
)
