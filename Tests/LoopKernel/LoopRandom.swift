// The loop host draws from the stream, and mixes into the hash, that all deterministic hosts share.

public import Messaging

public typealias LoopRandom = SeededRandom
public typealias LoopHash = EventHash
