"""What a data set of Hugging Face says of the columns of its tables."""

import json
from pathlib import Path

import yaml

__all__ = ["class_names", "features_of", "named"]

# What a file of JSON or yaml may be the cause of.
_WRONG = (OSError, ValueError, LookupError, TypeError, RecursionError)
_MOST = 1 << 20  # characters of a README that are looked at


def features_of(schema, folder):
    """What a data set says of its columns.

    Arguments
    ---------
    schema : pyarrow.Schema
        Of a table.
    folder : str or Path
        Of the data set, whose README may say it, too.

    Returns
    -------
    dict
        Column to a dict, in which ``_type`` is ``Audio`` or ``ClassLabel`` and
        the latter has ``names``.
    """
    try:
        text = (schema.metadata or {})[b"huggingface"]
        found = json.loads(text)["info"]["features"]
        if isinstance(found, dict):
            return found
    except _WRONG:
        pass
    return _features_of_readme(Path(folder) / "README.md")


def _features_of_readme(path):
    """The same, by the head of a README, if there is one."""
    try:
        with open(path, encoding="utf-8") as file:
            head = file.read(_MOST).split("---")[1]
        info = yaml.safe_load(head)["dataset_info"]
        info = info[0] if isinstance(info, list) else info
        features = {}
        for feature in info["features"]:
            kind = feature["dtype"]
            if isinstance(kind, dict) and "class_label" in kind:
                names = kind["class_label"]["names"]
                if isinstance(names, dict):
                    names = [names[key] for key in sorted(names, key=int)]
                features[feature["name"]] = {
                    "_type": "ClassLabel",
                    "names": names,
                }
            elif kind == "audio":
                features[feature["name"]] = {"_type": "Audio"}
        return features
    except (*_WRONG, yaml.YAMLError):
        return {}


def class_names(feature):
    """Names of the classes that a column has as numbers.

    Arguments
    ---------
    feature : dict or list
        What the data set says of it, see `features_of`; of a column of lists,
        what it says of what is in them.

    Returns
    -------
    list of str
        None for a column of something else.

    Example
    -------
    >>> class_names({"_type": "ClassLabel", "names": ["cat", "dog"]})
    ['cat', 'dog']
    """
    if isinstance(feature, list):
        return class_names(feature[0]) if feature else None
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if isinstance(names, list):
        return [str(name) for name in names]
    return class_names(feature.get("feature"))


def named(value, names):
    """A value, or the name of the class that it is the number of.

    Arguments
    ---------
    value : object
        Of a column; of a list, each is named.
    names : list of str
        See `class_names`.

    Returns
    -------
    object

    Example
    -------
    >>> named([0, 1, -1], ["cat", "dog"]), named(1, None)
    (['cat', 'dog', None], 1)
    """
    if isinstance(value, (list, tuple)):
        return [named(one, names) for one in value]
    if names is None or not isinstance(value, int):
        return value
    if 0 <= value < len(names):
        return names[value]
    return None if value == -1 else value  # as test sets without labels have
