"""The pictures that the project draws, one file a family, with matplotlib's objects and its Agg canvas: no pyplot, no
global state, so that the page may draw in several threads."""
