//! Which assignment a tenant has of each service, in as few bytes as it fits.

/// Ties a tenant to an assignment of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) service: u32,
    pub(super) assignment: u32,
}

/// Entries in the order of their services, each service once.
#[derive(Clone, Debug)]
pub(super) struct Entries(Form);

#[derive(Clone, Debug)]
enum Form {
    /// All numbers are below 2^16, as they are nearly always. A router holds millions of these.
    Narrow(Box<[(u16, u16)]>),
    Wide(Box<[(u32, u32)]>),
}

impl Default for Entries {
    fn default() -> Self {
        Self(Form::Narrow(Box::default()))
    }
}

impl Entries {
    /// `entries` are in order.
    pub(super) fn new(entries: &[Entry]) -> Self {
        let narrow =
            |entry: &Entry| Some((u16::try_from(entry.service).ok()?, u16::try_from(entry.assignment).ok()?));
        let wide = |entry: &Entry| (entry.service, entry.assignment);
        Self(match entries.iter().map(narrow).collect() {
            Some(narrow) => Form::Narrow(narrow),
            None => Form::Wide(entries.iter().map(wide).collect()),
        })
    }

    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Form::Narrow(entries) => entries.len(),
            Form::Wide(entries) => entries.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The assignment of a service; none if there is no entry.
    pub(super) fn assignment(&self, service: u32) -> Option<u32> {
        match &self.0 {
            Form::Narrow(entries) => find(entries, u16::try_from(service).ok()?).map(u32::from),
            Form::Wide(entries) => find(entries, service),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        let (narrow, wide): (&[_], &[_]) = match &self.0 {
            Form::Narrow(entries) => (entries, &[]),
            Form::Wide(entries) => (&[], entries),
        };
        let narrow = narrow.iter().map(|(service, assignment)| (u32::from(*service), u32::from(*assignment)));
        let entry = |(service, assignment)| Entry { service, assignment };
        narrow.chain(wide.iter().copied()).map(entry)
    }

    /// With another assignment of a service; 0 needs no entry.
    pub(super) fn assign(&mut self, service: u32, assignment: u32) {
        // Most of the time it has one already, and the other one needs as much room.
        if let (Form::Narrow(entries), Ok(of), Ok(to @ 1..)) =
            (&mut self.0, u16::try_from(service), u16::try_from(assignment))
            && let Ok(at) = entries.binary_search_by_key(&of, |(of, _)| *of)
            && let Some(entry) = entries.get_mut(at)
        {
            entry.1 = to;
            return;
        }
        let mut entries = Vec::with_capacity(self.len() + 1);
        entries.extend(self.iter());
        match entries.binary_search_by_key(&service, |entry| entry.service) {
            Ok(at) if assignment == 0 => {
                entries.remove(at);
            }
            Ok(at) => {
                if let Some(entry) = entries.get_mut(at) {
                    entry.assignment = assignment;
                }
            }
            Err(_) if assignment == 0 => return,
            Err(at) => entries.insert(at, Entry { service, assignment }),
        }
        *self = Self::new(&entries);
    }
}

/// Tenants pinned to most services are the rule, so the entry is often at its own index.
fn find<N: Copy + Ord + Into<u32>, A: Copy>(entries: &[(N, A)], service: N) -> Option<A> {
    let guess = entries.get(service.into() as usize).filter(|(of, _)| *of == service);
    let found = guess.or_else(|| {
        entries.binary_search_by_key(&service, |(of, _)| *of).ok().and_then(|at| entries.get(at))
    });
    found.map(|(_, assignment)| *assignment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn entries_are_found_whatever_their_size() {
        let mut model = BTreeMap::new();
        let mut entries = Entries::default();
        let steps = [
            (3, 7),
            (0, 1),
            (65_535, 65_535),
            (1, 2),
            (0, 0),
            (9, 0),
            (65_536, 4),
            (2, 65_536),
            (3, 70_000),
            (65_536, 0),
            (3, 1),
            (2, 9),
            (1, 0),
            (u32::MAX, u32::MAX),
            (u32::MAX, 0),
        ];
        for (service, assignment) in steps {
            entries.assign(service, assignment);
            match assignment {
                0 => drop(model.remove(&service)),
                assignment => drop(model.insert(service, assignment)),
            }
            let held: Vec<(u32, u32)> = entries.iter().map(|e| (e.service, e.assignment)).collect();
            assert_eq!(held, model.clone().into_iter().collect::<Vec<_>>());
            assert_eq!((entries.len(), entries.is_empty()), (model.len(), model.is_empty()));
            for (service, _) in steps {
                assert_eq!(entries.assignment(service), model.get(&service).copied(), "of {service}");
            }
        }
        assert!(matches!(entries.0, Form::Narrow(_)), "it is narrow again once it fits");
    }
}
