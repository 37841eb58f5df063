//! Mistakes that tests plant, one at a time, to show that the simulation finds them. Without tests there are none.

/// A mistake. Each is one line at the place where it could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests plant them"))]
pub(crate) enum Mistake {
    /// A new stream does not ask for the names that the last one asked for.
    LostResubscription,
    /// A new stream goes on with the nonce of the last one.
    OldNonce,
    /// Timers run on when their stream is gone.
    TimerWithoutStream,
    /// A timer runs on when another server is asked instead.
    TimerOfAnother,
    /// Silence of a server is no answer while anything is in use, wherever it came from.
    SilenceUnheard,
    /// A name is not asked for anew that the server may take for answered.
    NeverAskedAnew,
    /// The version of a refused response is said to be in use.
    VersionAfterNack,
    /// A response that was refused in part is refused as a whole.
    WholeNack,
    /// Waits go on growing after a server answered.
    BackoffNotReset,
    /// Endpoints that are not in a response are taken for deleted.
    AbsentEndpointsDeleted,
    /// What the server removed stays (incremental).
    RemovalIgnored,
    /// Versions are claimed of resources that there is trouble with (incremental).
    ClaimedInTrouble,
    /// Names that are wanted no more are not unsubscribed from (incremental).
    UnsubscribeUnsaid,
    /// What is wanted no more is forgotten at once, though the server may not know that yet.
    ForgottenAtOnce,
    /// Endpoints that nobody wants stay in the cache.
    EntryKept,
    /// A server that was fallen back to stays in use beside the preferred one.
    FallbackKept,
    /// The grace of an emptied set starts over each time it is told to be empty.
    GraceRenewed,
    /// The grace of an emptied set never ends.
    GraceWithoutEnd,
    /// A configuration is put in force before its clusters are there.
    Torn,
    /// That no server can be reached is taken for what there is to know of a resource.
    OutageIsAnswer,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// Whether this mistake is to be made.
#[cfg(test)]
pub(crate) fn planted(mistake: Mistake) -> bool {
    PLANTED.get() == Some(mistake)
}

/// None is.
#[cfg(not(test))]
pub(crate) const fn planted(_: Mistake) -> bool {
    false
}

/// Makes this mistake on this thread from now on.
#[cfg(test)]
pub(crate) fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}
