"""What training, export and service agree on: schemas, packed rows, bundles. numpy and yaml only."""
