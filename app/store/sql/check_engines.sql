-- Whether anybody promotes, claims and delivers.
select exists (select {engines})
