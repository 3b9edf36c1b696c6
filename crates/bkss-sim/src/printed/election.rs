//! Algorithm 1 as printed: how a leader is chosen.
//!
//! It is the election of Raft, made for nodes that crash but do not lie. Votes are unsigned, nobody
//! counts how often a node votes, and the tenure number is whatever a candidate says.

/// What a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// It waits for messages of a leader.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// A node of Algorithm 1.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) role: Role,
    /// The newest tenure it has heard of.
    pub(crate) tenure: u64,
    /// Whom it takes for the leader.
    pub(crate) leader: Option<usize>,
}

/// A request for votes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidacy {
    /// Who asks.
    pub(crate) candidate: usize,
    /// For which tenure.
    pub(crate) tenure: u64,
}

impl Node {
    /// A follower at the start.
    pub(crate) const fn new() -> Self {
        Self { role: Role::Follower, tenure: 0, leader: None }
    }

    /// Becomes a candidate of the next tenure.
    pub(crate) fn stand(&mut self, own: usize) -> Candidacy {
        (self.role, self.tenure) = (Role::Candidate, self.tenure + 1);
        Candidacy { candidate: own, tenure: self.tenure }
    }

    /// Votes for whoever names a newer tenure, and steps down for it.
    pub(crate) fn vote(&mut self, candidacy: Candidacy) -> bool {
        if candidacy.tenure <= self.tenure {
            return false;
        }
        (self.role, self.tenure) = (Role::Follower, candidacy.tenure);
        true
    }

    /// Takes the word of a node that says it has won a tenure.
    pub(crate) fn announced(&mut self, candidacy: Candidacy) {
        if candidacy.tenure >= self.tenure {
            self.role = Role::Follower;
            (self.tenure, self.leader) = (candidacy.tenure, Some(candidacy.candidate));
        }
    }
}

/// `N_v > n/2 + 1`.
pub(crate) const fn elects(votes: usize, nodes: usize) -> bool {
    votes > nodes / 2 + 1
}
