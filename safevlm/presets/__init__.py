"""Taxonomies as YAML; `safevlm.taxonomy.Taxonomy.preset` reads them."""
