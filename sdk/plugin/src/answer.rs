//! Giving an event its verdict, once.

use levada_protocol::verdict::{Output, VerdictWriter};

/// Gives an event its one verdict: every method consumes it.
#[derive(Debug)]
pub struct Answer<'a> {
    verdicts: &'a mut VerdictWriter,
}

/// Proof that a verdict was given; only [`Answer`] makes it.
#[derive(Debug)]
#[must_use = "return it from process"]
pub struct Answered(());

impl<'a> Answer<'a> {
    #[inline]
    pub(crate) fn new(verdicts: &'a mut VerdictWriter) -> Self {
        Self { verdicts }
    }

    /// The event goes on as it is.
    #[inline]
    pub fn keep(self) -> Answered {
        self.verdicts.keep();
        Answered(())
    }

    /// The event ends here and counts as processed.
    #[inline]
    pub fn drop(self) -> Answered {
        self.verdicts.drop_event();
        Answered(())
    }

    /// The event is refused; the reason, cut to 1 KiB, goes where refused events go.
    pub fn reject(self, reason: &str) -> Answered {
        self.verdicts.reject(reason);
        Answered(())
    }

    /// The event is refused because it cannot be decoded: its dead letter has the reason `undecodable`, so that it can be
    /// told apart from events that were rejected for their content. The error is cut to 1 KiB.
    pub fn undecodable(self, error: &str) -> Answered {
        self.verdicts.undecodable(error);
        Answered(())
    }

    /// The event becomes this one.
    ///
    /// # Panics
    /// If a part of the output whose length is a u16 (key, id, topic, a header's value) is over 64 KiB.
    #[inline]
    pub fn emit(self, output: &Output<'_>) -> Answered {
        self.emit_all(std::slice::from_ref(output))
    }

    /// The event becomes these; only at a route may they be several.
    ///
    /// # Panics
    /// If there are more than 65,535, or as [`Answer::emit`] does.
    #[inline]
    pub fn emit_all(self, outputs: &[Output<'_>]) -> Answered {
        self.verdicts.emit(outputs);
        Answered(())
    }
}
