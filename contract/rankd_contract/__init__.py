"""What training, export and service agree on: schema, encoding, packed rows, signatures, bundles.

Costs numpy and YAML to import, nothing else.
"""
