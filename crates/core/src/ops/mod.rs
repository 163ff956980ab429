//! Trainable operations on candle.
