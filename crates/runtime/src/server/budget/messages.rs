//! Where messages of gRPC begin and end in a body.

/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Follows messages of gRPC through the frames that they come in.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX],
    /// How much has come of the message that is incomplete, its prefix included.
    come: usize,
    /// How much is missing of it; unknown, and 0, while its prefix comes.
    missing: usize,
}

impl Messages {
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.missing > 0 {
                let taken = self.missing.min(bytes.len());
                self.missing -= taken;
                taken
            } else {
                self.follow_prefix(bytes)
            };
            self.come += taken;
            if self.missing == 0 && self.come >= PREFIX {
                self.come = 0;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// How many of the bytes are of the prefix.
    fn follow_prefix(&mut self, bytes: &[u8]) -> usize {
        let wanted = self.prefix.get_mut(self.come..).unwrap_or_default();
        let taken = wanted.len().min(bytes.len());
        for (place, byte) in wanted.iter_mut().zip(bytes) {
            *place = *byte;
        }
        if taken == wanted.len() {
            let [_, length @ ..] = self.prefix;
            self.missing = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        }
        taken
    }

    /// Bytes of the message that is incomplete.
    pub(super) fn incomplete(&self) -> usize {
        self.come
    }
}
