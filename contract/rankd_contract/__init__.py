"""What training, export and service agree on: schema, encoding, packed rows, signatures, bundles. numpy and YAML only."""
