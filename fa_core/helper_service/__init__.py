"""The helper of a sum by two aggregators as a process: `fa helper`."""
