//! Today's date for templates that put it into the system message (`strftime_now`), in UTC. A
//! browser's module has no clock; there the function is not defined, and templates that ask first
//! take their fixed date.

use super::{Outcome, wrong};

pub const IS_THERE: bool = cfg!(not(target_arch = "wasm32"));

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From the weekday of 1 January 1970.
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The time `now`, or that of the clock, in Python's format.
pub fn formatted(now: Option<u64>, format: &str) -> Outcome<String> {
    if let Some(now) = now {
        return at(now, format);
    }
    if !IS_THERE {
        return Err(wrong("there is no clock"));
    }
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|_| wrong("the clock shows a time before 1970"))?;
    at(since.as_secs(), format)
}

/// The moment `seconds` after 1970 began, in Python's format.
fn at(seconds: u64, format: &str) -> Outcome<String> {
    let (days, time) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = date(days);
    let weekday = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut letter = chars.next();
        // A minus leaves zeros at the beginning out.
        let plain = letter == Some('-');
        if plain {
            letter = chars.next();
        }
        let part = match letter {
            Some('Y') => format!("{year:04}"),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('B') => month_name.to_string(),
            Some('b') => month_name[..3].to_string(),
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:>2}"),
            Some('j') => format!("{:03}", day_of_year(days)),
            Some('F') => format!("{year:04}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('H') => format!("{hour:02}"),
            Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('M') => format!("{minute:02}"),
            Some('S') => format!("{second:02}"),
            Some('%') => "%".to_string(),
            other => {
                return Err(wrong(format!(
                    "strftime_now does not know %{}",
                    other.map(String::from).unwrap_or_default()
                )));
            }
        };
        let part = if plain { part.trim_start_matches(['0', ' ']) } else { &part };
        text.push_str(if part.is_empty() { "0" } else { part });
    }
    Ok(text)
}

/// From 1.
fn day_of_year(days: u64) -> u64 {
    let (year, month, day) = date(days);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
    before + day + u64::from(leap && month > 2)
}

/// Year, month and day of a day counted from 1 January 1970: the civil calendar in eras of 400
/// years that begin on 1 March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (
        era * 400 + year_of_era + u64::from(month <= 2),
        month,
        day_of_year - (153 * from_march + 2) / 5 + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_formatted_as_by_strftime() {
        for (seconds, text) in [
            (0, "Thursday 01 January 1970 00:00:00 AM 12"),
            (951_782_400, "Tuesday 29 February 2000 00:00:00 AM 12"),
            (1_722_038_399, "Friday 26 July 2024 23:59:59 PM 11"),
            (4_107_542_400, "Monday 01 March 2100 00:00:00 AM 12"),
        ] {
            assert_eq!(at(seconds, "%A %d %B %Y %H:%M:%S %p %I").expect("a date"), text);
        }
        assert_eq!(
            at(951_782_400, "%j %-d %-m %e %F %T").expect("a date"),
            "060 29 2 29 2000-02-29 00:00:00"
        );
        assert_eq!(at(0, "%j %-d %e %-H").expect("a date"), "001 1  1 0");
        assert!(at(0, "%Q").is_err() && at(0, "%").is_err());
    }
}
