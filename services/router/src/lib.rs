//! The data plane: answers Route, Explain, Watch and Report from its in-memory routing table.
