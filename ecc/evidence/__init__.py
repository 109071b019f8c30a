"""What is shown: tables (`tables`) and figures (`figures`) made from the files that runs leave."""
