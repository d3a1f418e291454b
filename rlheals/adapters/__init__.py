"""Tasks as environments of other frameworks: one file each, named after the package."""
