//! Just enough of Rust's lexical structure: code without comments, strings and test modules, with line numbers kept.

/// `text` with comments, string and character literals blanked out; every newline stays where it was.
pub(super) fn code(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    while i < bytes.len() {
        let rest = &bytes[i..];
        let end = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"', ..] | ['r', '#', ..] if !after_word(&out) => raw_string(rest),
            ['b', '"', ..] if !after_word(&out) => 1 + string(&rest[1..]),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => 2 + rest[2..].iter().skip(1).position(|&c| c == '\'').map_or(0, |at| at + 2),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if end == 0 {
            out.push(bytes[i]);
            i += 1;
        } else {
            out.extend(rest[..end.min(rest.len())].iter().map(|&c| blank(c)));
            i += end;
        }
    }
    out
}

/// `text` as [`code`], with `#[cfg(test)]` items blanked out as well.
pub(super) fn shipped(text: &str) -> String {
    let mut out = code(text);
    while let Some((start, end)) = test_item(&out) {
        let blanked: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blanked);
    }
    out
}

/// The lines of `text`, numbered from 1, that are not part of a `#[cfg(test)]` item; comments and strings are kept.
pub(super) fn shipped_lines(text: &str) -> Vec<(usize, &str)> {
    let mut blanked = code(text);
    let mut tests = Vec::new();
    while let Some((start, end)) = test_item(&blanked) {
        tests.push(line_of(&blanked, start)..=line_of(&blanked, end));
        let spaces: String = blanked[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        blanked.replace_range(start..end, &spaces);
    }
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines.filter(|(number, _)| !tests.iter().any(|test| test.contains(number))).collect()
}

/// Where the first `#[cfg(test)]` item of blanked source starts and ends.
fn test_item(code: &str) -> Option<(usize, usize)> {
    let start = code.find("#[cfg(test)]")?;
    let open = start + code[start..].find(['{', ';'])?;
    Some((start, if code[open..].starts_with('{') { closing(code, open) } else { open + 1 }))
}

/// The functions of blanked source: the line of `fn` and the text from there to the end of the body.
pub(super) fn functions(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        if let Some(open) = code[at..].find(['{', ';']).map(|n| at + n)
            && code[open..].starts_with('{')
        {
            found.push((line_of(code, at), &code[at..closing(code, open)]));
        }
    }
    found
}

/// 1-based line of a byte offset.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Lines of `code` that contain `token` as a word (its ends are not inside a longer identifier).
pub(super) fn lines_with(code: &str, token: &str) -> Vec<usize> {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let inside = |at: usize| {
        let before = token.starts_with(|c: char| c.is_alphanumeric()) && word(code[..at].chars().next_back());
        let after = token.ends_with(|c: char| c.is_alphanumeric()) && word(code[at + token.len()..].chars().next());
        before || after
    };
    code.match_indices(token).filter(|(at, _)| !inside(*at)).map(|(at, _)| line_of(code, at)).collect()
}

fn after_word(out: &str) -> bool {
    out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Offset just behind the brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut i = 0;
    while i < rest.len() {
        match rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

fn string(rest: &[char]) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != '"' {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// 0 when `rest` is no raw string after all (a raw identifier).
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut i = 2 + hashes;
    while i < rest.len() {
        if rest[i] == '"' && rest[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    rest.len()
}
