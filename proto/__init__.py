"""Wire formats: protobuf messages between Mesograd's processes, tensor frames, and the Mesos HTTP API."""
