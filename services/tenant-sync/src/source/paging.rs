//! From one page to the next.

use std::collections::HashSet;

use reqwest::Url;

use super::Error;
use super::options::{Options, Paging, PagingKind};
use super::page::{Page, Received};
use super::roster::Roster;

/// The way through the pages, and what they listed so far.
#[derive(Debug)]
pub(super) struct Walk<'s> {
    paging: &'s Paging,
    start: &'s Url,
    max_tenants: usize,
    roster: Roster,
    entries: usize,
    total: Option<u64>,
    seen: HashSet<Url>,
}

impl<'s> Walk<'s> {
    /// `start` is the first page's address.
    pub(super) fn new(options: &'s Options, start: &'s Url) -> Self {
        Self {
            paging: &options.paging,
            start,
            max_tenants: options.max_tenants,
            roster: Roster::default(),
            entries: 0,
            total: None,
            seen: HashSet::from([start.clone()]),
        }
    }

    /// Takes the next page in. Returns the address of the one after it; none: it was the last.
    pub(super) fn take(&mut self, what: &str, received: &Received) -> Result<Option<Url>, Error> {
        let (Page { entries, total, .. }, next) = (&*received.page, received.next.as_ref());
        if let (Some(before), Some(after)) = (self.total, *total)
            && before != after
        {
            return Err(Error::Changed { before, after });
        }
        self.total = *total;
        self.entries += entries.len();
        if self.entries > self.max_tenants {
            return Err(Error::TooManyTenants { limit: self.max_tenants });
        }
        let (empty, listed) = (entries.is_empty(), self.roster.listed());
        entries.iter().for_each(|entry| self.roster.add(entry));
        self.roster.pages += 1;
        let next = match self.paging.kind {
            PagingKind::None => None,
            // A total that one page reaches may be that page's length: only another page tells.
            PagingKind::Page | PagingKind::Offset
                if empty || (self.is_complete() && self.roster.pages > 1) =>
            {
                None
            }
            // A server that ignores the number sends the same page for ever.
            PagingKind::Page | PagingKind::Offset if self.roster.listed() == listed => {
                return Err(Error::Loop { what: what.to_owned(), fault: "it lists nothing new" });
            }
            PagingKind::Page => Some(numbered(self.start, self.paging, self.roster.pages)),
            PagingKind::Offset => Some(numbered(self.start, self.paging, self.entries as u64)),
            PagingKind::Cursor => next.map(|cursor| with(self.start, &self.paging.cursor_param, cursor)),
            PagingKind::Link => next.map(|link| self.linked(what, link)).transpose()?,
        };
        if let Some(next) = &next
            && !self.seen.insert(next.clone())
        {
            return Err(Error::Loop { what: what.to_owned(), fault: "it leads back to an earlier page" });
        }
        Ok(next)
    }

    /// Whether as many were listed as are said to exist.
    pub(super) fn is_complete(&self) -> bool {
        self.total.is_some_and(|total| self.roster.listed() >= total)
    }

    /// Everything that was listed, after the last page.
    pub(super) fn finish(self) -> Result<Roster, Error> {
        let listed = self.roster.listed();
        match self.total {
            Some(told) if told != listed => Err(Error::Total { listed, told }),
            _ => Ok(self.roster),
        }
    }

    fn linked(&self, what: &str, link: &str) -> Result<Url, Error> {
        let unfit = |fault| Error::Link { what: what.to_owned(), fault };
        let mut url = Url::parse(link).map_err(|_| unfit("its link to the next page is no URL"))?;
        if url.origin() != self.start.origin() {
            return Err(unfit("its link to the next page leads to another origin"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unfit("its link to the next page holds credentials"));
        }
        url.set_fragment(None);
        Ok(url)
    }
}

/// The first page's address.
pub(super) fn first(list: &Url, paging: &Paging) -> Url {
    let mut url = list.clone();
    if paging.kind != PagingKind::None && !paging.size_param.is_empty() {
        url = with(&url, &paging.size_param, &paging.size.to_string());
    }
    if let PagingKind::Page | PagingKind::Offset = paging.kind {
        url = numbered(&url, paging, 0);
    }
    url
}

/// The address of the page that is `ahead` of the first one, in pages or entries.
fn numbered(url: &Url, paging: &Paging, ahead: u64) -> Url {
    let (param, first) = match paging.kind {
        PagingKind::Offset => (&paging.offset_param, paging.first_offset),
        _ => (&paging.page_param, paging.first_page),
    };
    with(url, param, &first.saturating_add(ahead).to_string())
}

/// The target of the link with relation `next`, absolute, in a list of `Link` headers (RFC 8288).
pub(super) fn next_link(base: &Url, headers: &[String]) -> Option<String> {
    let target = headers.iter().find_map(|header| next_target(header))?;
    Some(absolute(base, target))
}

/// What `link` means in a document that came from `base`; left alone if it means nothing.
pub(super) fn absolute(base: &Url, link: &str) -> String {
    base.join(link).map_or_else(|_| link.to_owned(), String::from)
}

fn next_target(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, link)) = rest.split_once('<') {
        let (target, after) = link.split_once('>')?;
        let (mut parameters, others) = split_unquoted(after, ',');
        while !parameters.is_empty() {
            let (parameter, more) = split_unquoted(parameters, ';');
            if is_next(parameter) {
                return Some(target);
            }
            parameters = more;
        }
        rest = others;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|word| word.eq_ignore_ascii_case("next"))
}

/// What stands before and after the first `separator` that is not between quotation marks.
fn split_unquoted(text: &str, separator: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (position, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                let (before, after) = text.split_at(position);
                return (before, after.strip_prefix(separator).unwrap_or(after));
            }
            _ => {}
        }
    }
    (text, "")
}

/// `url` with `name` set to `value`, whatever it was before.
fn with(url: &Url, name: &str, value: &str) -> Url {
    let others: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| key != name)
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(others).append_pair(name, value);
    url
}

#[cfg(test)]
mod tests;
