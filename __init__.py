"""FiLA-Video: long-video understanding by scene selection and scene merging."""
