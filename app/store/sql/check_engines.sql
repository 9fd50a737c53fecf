-- Whether any replica promotes, claims and delivers.
select exists (select {engines})
