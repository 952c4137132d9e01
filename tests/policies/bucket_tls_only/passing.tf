resource "aws_s3_bucket" "passing" {
  bucket = "pictures-with-tls"
}

resource "aws_s3_bucket_policy" "tls_only" {
  bucket = aws_s3_bucket.passing.id
  policy = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [{
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::pictures-with-tls", "arn:aws:s3:::pictures-with-tls/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}}
      }]
    }
  JSON
}
